"""The folder in which an output comes to be: units as files, a plan that says what of, and one file at the end."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.files.names import shown
from satdifuser.engine.files import DamagedError, read_json, write_text, writing
from satdifuser.errors import UserError
from satdifuser.scenes.out.base import Array, Output, Target
from satdifuser.scenes.out.forms import encode
from satdifuser.scenes.units import Unit
from satdifuser.store.disk import locked

IDENTITY = "SATDIFUSER_IDENTITY"
PLAN, UNITS, LOCK, RESULT = "plan.json", "units", "lock", "result"
GOES_ON = "give the same command again: it goes on from there"
NAME = re.compile(r"(\d+)-(\d+)_(\d+)-(\d+)")
ROOM = 16 * 2**20  # with less of it free, a disk counts as full


@dataclass(frozen=True)
class Piece:
    """A unit on disk."""

    path: Path
    rows: slice
    columns: slice

    @property
    def height(self) -> int:
        return int(self.rows.stop - self.rows.start)

    @property
    def width(self) -> int:
        return int(self.columns.stop - self.columns.start)


class Partial(Output):
    """What all kinds of files share; each writes a unit's bytes and makes the file of all units in its own way."""

    suffix: str

    def __init__(self, path: str, target: Target) -> None:
        self.path, self.target = Path(path).expanduser(), target
        self.folder = self.path.with_name(f"{self.path.name}.partial")
        self.units = self.folder / UNITS
        self.digest = digest_of(target)
        self.done = False

    @abstractmethod
    def unit_bytes(self, array: Array, nodata: float) -> bytes:
        """A unit `[bands, h, w]` as a file."""

    @abstractmethod
    def assemble(self, pieces: Sequence[Piece], result: Path) -> list[tuple[Path, Path]]:
        """Make the file of all units at `result`; gives what is to be renamed to what, the file itself last."""

    @abstractmethod
    def digest_there(self) -> str | None:
        """The digest that the file at the path was made with; None where it has none."""

    def begin(self, overwrite: bool) -> None:
        if not overwrite and self.path.exists():
            if self._made() != self.digest:
                raise UserError(f"{shown(self.path)} is there already: give another out, or overwrite=true")
            self.done = True
            return
        with writing(self.folder, GOES_ON):
            if self.folder.exists() and not self._ours(overwrite):
                self._remove(self.folder)
            self.units.mkdir(parents=True, exist_ok=True)
            if not (self.folder / PLAN).exists():
                write_text(self.folder / PLAN, self._plan())

    def todo(self, units: Sequence[Unit]) -> list[Unit]:
        return [] if self.done else [unit for unit in units if not self._at(unit).exists()]

    def write(self, unit: Unit, values: Array, valid: Array) -> None:
        content = self.unit_bytes(*encode(self.target.form, values, valid))
        path = self._at(unit)
        aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with writing(path, GOES_ON):
            try:
                with aside.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    aside.unlink(missing_ok=True)
                raise

    def finish(self) -> list[str]:
        if not self.done:
            with self._alone() as there:
                if there:
                    pieces = self.pieces()
                    if pieces is None:
                        return []
                    self._make(pieces)
        if self.path.exists() and self._made() == self.digest:
            with contextlib.suppress(OSError):  # another process removes it too
                if self.folder.exists():
                    self._remove(self.folder)
            self.done = True
            return [str(self.path)]
        return []

    def pieces(self) -> list[Piece] | None:
        """All units in order; None while some are missing."""
        found = []
        for path in self.units.glob(f"*{self.suffix}"):
            if match := NAME.fullmatch(path.stem):
                top, bottom, left, right = map(int, match.groups())
                found.append(Piece(path, slice(top, bottom), slice(left, right)))
        found.sort(key=lambda piece: (piece.rows.start, piece.columns.start))
        downs = np.unique([0, self.target.place.height, *(e for p in found for e in (p.rows.start, p.rows.stop))])
        acrosses = np.unique(
            [0, self.target.place.width, *(e for p in found for e in (p.columns.start, p.columns.stop))]
        )
        covered = np.zeros((len(downs) - 1, len(acrosses) - 1), int)
        for piece in found:
            top, bottom = np.searchsorted(downs, (piece.rows.start, piece.rows.stop))
            left, right = np.searchsorted(acrosses, (piece.columns.start, piece.columns.stop))
            covered[top:bottom, left:right] += 1
        if (covered > 1).any():
            raise UserError(f"{shown(self.folder)} has units of two sizes: remove it, or set overwrite=true")
        return found if covered.all() else None

    def _make(self, pieces: Sequence[Piece]) -> None:
        for left in self.folder.glob(f"{RESULT}*"):
            self._remove(left)
        result = self.folder / f"{RESULT}{self.path.suffix.lower()}"
        with full_disk(self.folder, self.path), writing(self.path, GOES_ON):
            moves = self.assemble(pieces, result)
            for source, place in moves:
                if place.is_dir():  # a folder cannot be renamed onto another
                    place.rename(self.folder / f"{RESULT}-before")
                source.replace(place)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether the folder is still there, once no other process of this output is making the file."""
        try:
            file = (self.folder / LOCK).open("w")
        except FileNotFoundError:  # another has made the file and removed the folder
            yield False
            return
        with file:
            locked(file, wait=True)
            yield (self.folder / PLAN).exists()

    def _ours(self, overwrite: bool) -> bool:
        """Whether what is half done is to be gone on with; an error where it is of something else."""
        plan = self.folder / PLAN
        if not plan.exists():
            strange = [p.name for p in self.folder.iterdir() if p.name not in (UNITS, LOCK) and PLAN not in p.name]
            if not strange and not any(self.units.glob("*")):
                return True
            what = f"has no {PLAN}, so nobody knows of what it is" if not strange else f"holds {shown(strange[0])}"
            if strange:
                raise UserError(
                    f"{shown(self.folder)} {what}, which is not of this command: move it, or give another out"
                )
        else:
            try:
                known = read_json(plan, dict, "remove it")
            except DamagedError:
                known = {}
            if known.get("digest") == self.digest:
                return True
            what = f"is half done of something else{_differing(known.get('identity'), self.target.identity)}"
        if overwrite:
            return False
        raise UserError(f"{shown(self.folder)} {what}: remove it, set overwrite=true, or give another out")

    def _plan(self) -> str:
        return json.dumps({"digest": self.digest, "identity": _plain(self.target.identity)}, indent=2, default=str)

    def _at(self, unit: Unit) -> Path:
        rows, columns = unit.rows, unit.columns
        return self.units / f"{rows.start}-{rows.stop}_{columns.start}-{columns.stop}{self.suffix}"

    def _made(self) -> str | None:
        try:
            return self.digest_there()
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _remove(self, path: Path) -> None:
        """Under another name first, so that nobody takes half of it for the whole."""
        if path == self.folder:
            going = path.with_name(f"{path.name}.{os.getpid()}.removed")
            path.replace(going)
            path = going
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def digest_of(target: Target) -> str:
    """All that decides what is in the file, as a word."""
    place, form = target.place, asdict(target.form)
    crs = None if place.crs is None else place.crs.to_wkt()
    known = {
        "identity": _plain(target.identity),
        "form": form,
        "grid": [*map(repr, map(float, place.transform)), crs, place.height, place.width],
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextlib.contextmanager
def full_disk(folder: Path, path: Path) -> Iterator[None]:
    """Libraries that say only that something could not be written: where the disk is full, that is why."""
    try:
        yield
    except UserError:
        if shutil.disk_usage(folder).free < ROOM:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with writing(path, GOES_ON):
                raise full from None
        raise


def _plain(values: Any) -> Any:
    return json.loads(json.dumps(dict(values), sort_keys=True, default=str))


def _differing(known: Any, identity: Any) -> str:
    """What is not the same, by its name."""
    if not isinstance(known, dict):
        return ""
    now = _plain(identity)
    names = [name for name in sorted({*known, *now}) if known.get(name) != now.get(name)]
    return f" ({', '.join(names[:3])} {'is' if len(names) == 1 else 'are'} not the same)" if names else ""
