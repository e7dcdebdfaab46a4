"""Which images lie below a folder, and of which class: the first folder on the way to an image."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from satdifuser.data.files.geotiff import RASTERS
from satdifuser.data.files.names import name_fault, shown
from satdifuser.data.files.pictures import PICTURES
from satdifuser.errors import UserError

log = logging.getLogger(__name__)
SUFFIXES = (*PICTURES, *RASTERS)
KINDS = ", ".join(SUFFIXES)


def find_root(root: str) -> Path:
    """The folder of that name, `~` included."""
    if not root:
        raise UserError("data.root is empty: give the folder that holds the class folders (. is this one)")
    try:
        path = Path(root).expanduser() if root.startswith("~") else Path(root)  # and not where it says ./~
    except RuntimeError:  # there is no such user, but perhaps such a folder
        path = Path(root)
    if name_fault(root) == "has a name that is not UTF-8":
        raise UserError(f"data.root {shown(path)} has a name that is not UTF-8: rename it")
    if not _answers(path.is_dir):
        raise UserError(f"data.root {shown(path.absolute())} is no folder: give the one that holds the class folders")
    return path


def by_class(root: Path, classes: Sequence[str] | None) -> dict[str, list[str]]:
    """Class -> paths of its images below the root; the class of images that lie in the root itself is ''."""
    where = f"data.root {shown(root)}"
    folders = sorted(entry.name for entry in _entries(root) if _is_folder(entry))
    missing = [name for name in classes or () if name not in folders]
    if missing:
        raise UserError(f"{where} has no folder {shown(missing[0])}: it has {', '.join(map(shown, folders))}")
    found = {name: _images(root, name) for name in (folders if classes is None else classes)}
    empty = [name for name in found if not found[name]]
    if empty and classes is not None:
        raise UserError(f"{where} has no images in {shown(empty[0])}: leave it out of data.classes")
    found = {name: images for name, images in found.items() if images}
    for name in found:
        if name_fault(name) is not None:
            raise UserError(f"{where} has a class folder that {name_fault(name)}: rename {shown(name)}")
    loose = [] if classes is not None else _images(root, "", deep=False)
    if loose and found:
        raise UserError(
            f"{where} has images beside class folders ({shown(loose[0])}, {next(iter(found))}): move them into one, or"
            " name the folders in data.classes"
        )
    if not loose and not found:
        raise UserError(f"{where} has no images ({KINDS}) in it or in its folders")
    if found and empty:
        warn_once(f"{where} has no images in {', '.join(map(shown, empty))} ({KINDS}), which is no class then")
    return found or {"": loose}


def _images(root: Path, below: str, deep: bool = True) -> list[str]:
    """Paths below the root of the images in one of its folders, sorted; links to folders are followed, but no loops."""
    found: list[str] = []
    todo = [(below, frozenset[tuple[int, int]]())]
    while todo:
        folder, above = todo.pop()
        status = (root / folder).stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        for entry in _entries(root / folder):
            name = f"{folder}/{entry.name}" if folder else entry.name
            if _is_folder(entry):
                todo += [(name, above | {here})] if deep else []
            elif entry.name.lower().endswith(SUFFIXES) and _is_file(entry):
                found.append(name)
    return sorted(found)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder and is not hidden."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(
            f"{shown(folder)} cannot be listed ({error.strerror}): let it be read, or move it out of data.root"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return _answers(Path(entry.path).is_dir) if entry.is_symlink() else entry.is_dir()


def _is_file(entry: os.DirEntry[str]) -> bool:
    """A file, or a link to one; one that leads nowhere is an image too, which cannot be read: so it gets a name."""
    if not entry.is_symlink():
        return entry.is_file()
    return _answers(Path(entry.path).is_file) or not _answers(Path(entry.path).exists)


def _answers(question: Callable[[], bool]) -> bool:
    """What pathlib answers; no where the disk will not say."""
    try:
        return question()
    except OSError:
        return False


@functools.cache
def warn_once(line: str) -> None:
    """A line for the user, once in a process: a data set is opened again for each split."""
    log.warning("%s", line)
