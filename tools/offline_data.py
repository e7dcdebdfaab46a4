"""Images in parts that are carried one by one: each is a fair share of every class, and any of them make a data set.

Images are drawn by a hash of their path, as `satdifuser/data/splits/holdout.py` draws the test images, but by another
one: so each part has its share of the test images of the whole, and a data set of some parts splits much as the whole
does.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from satdifuser.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
PART = 16 * 10**6  # bytes, at most
SLACK = 0.985  # of what is hoped to fit: sizes after compression differ from part to part
TRIAL = 400  # images that are compressed to see how far they shrink


def images_by_class(root: Path) -> dict[str, list[str]]:
    """Class folder -> paths of its images below `root`; images that lie in `root` itself are of class ''."""
    if not root.is_dir():
        raise UserError(f"--data {root} is no folder: give the one that holds the class folders")
    found: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if path.suffix.lower() in SUFFIXES and path.is_file() and not hidden:
            found.setdefault(name.rpartition("/")[0].partition("/")[0], []).append(name)
    if not found:
        raise UserError(f"--data {root} has no images ({', '.join(SUFFIXES)}): give the folder of the class folders")
    return found


def fair_order(names: Mapping[str, Sequence[str]]) -> list[str]:
    """All images in an order of which every slice has each class's share, drawn by chance.

    >>> order = fair_order({"a": ["a/1", "a/2", "a/3", "a/4"], "b": ["b/1", "b/2"]})
    >>> [sorted(name[0] for name in order[start : start + 3]) for start in (0, 3)]
    [['a', 'a', 'b'], ['a', 'a', 'b']]
    """
    placed = []
    for members in names.values():
        ordered = sorted((_draw(name), name) for name in members)
        placed += [((place + 0.5) / len(ordered), draw, name) for place, (draw, name) in enumerate(ordered)]
    return [name for _, _, name in sorted(placed)]


def _draw(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16, person=b"offline parts").digest()


def pack(root: Path, names: Sequence[str]) -> bytes:
    """A tar of some files, by name, so that xz finds each header in the one before; without owners or times."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=6, format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(names):
            content = (root / name).read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def parts(root: Path, order: Sequence[str], room: int, part: int) -> Iterator[tuple[bytes, int]]:
    """Packed parts and how many images are in each, as many as there is room for, none larger than `part` bytes."""
    sizes = [(root / name).stat().st_size for name in order]
    trial = min(TRIAL, len(order))
    shrinks = len(pack(root, order[:trial])) / max(1, sum(sizes[:trial]))
    start = 0
    while start < len(order) and room > part // 16:
        cap = min(part, room)
        count = _fitting(sizes[start:], cap * SLACK / shrinks)
        packed = pack(root, order[start : start + count])
        while len(packed) > cap and count > 1:
            count = max(1, int(count * SLACK * cap / len(packed)))
            packed = pack(root, order[start : start + count])
        if len(packed) > cap:
            if cap < part:
                return
            raise UserError(f"--data: {order[start]} takes more than the {part / 1e6:g} MB of a part: leave it out")
        yield packed, count
        start += count
        room -= len(packed)


def _fitting(sizes: Sequence[int], room: float) -> int:
    """How many of the first files have this size together; at least one."""
    for count, size in enumerate(sizes):
        room -= size
        if room < 0:
            return max(1, count)
    return len(sizes)


def write_parts(
    root: Path, folder: Path, room: int, part: int = PART, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Write `part-01.tar.xz` and on into `folder`; what is in them, for the manifest."""
    order = fair_order(images_by_class(root))
    folder.mkdir()
    counts = {}
    for number, (packed, count) in enumerate(parts(root, order, room, part), 1):
        path = folder / f"part-{number:02d}.tar.xz"
        path.write_bytes(packed)
        counts[path.name] = count
    if not counts:
        raise UserError(f"--data: {max(0, room) / 2**20:.1f} MiB are left for images: give a larger --limit-mib")
    say(f"{sum(counts.values())} of {len(order)} images of {root} fit, in {len(counts)} part{'s' * (len(counts) > 1)}")
    return {"name": root.resolve().name, "images": sum(counts.values()), "of": len(order), "parts": counts}
