"""Names in a table or a list, found among sample ids: as they are, without folders, or without endings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from satdifuser.data.files.images import KINDS
from satdifuser.data.files.names import shown
from satdifuser.errors import UserError

ENDINGS = (*KINDS, ".jp2", ".csv", ".json", ".geojson", ".txt", ".zip", ".nc", ".hdf")


def bare(name: str) -> str:
    """Without its ending, if that is one of a file.

    >>> bare("a/b.tif"), bare("v1.2/b"), bare("tile_1.S2")
    ('a/b', 'v1.2/b', 'tile_1.S2')
    """
    start, dot, ending = name.rpartition(".")
    return start if start and not start.endswith("/") and f"{dot}{ending}".lower() in ENDINGS else name


def last(name: str) -> str:
    return name.rpartition("/")[2]


class Names:
    """Sample ids, to find one by what somebody wrote of it: with or without (some of) its folders and its ending.

    The id itself comes first, then what agrees but for the ending, then what agrees but for folders that one of both
    does not have, then but for either. Folders that both have must be the same.

    >>> names = Names(["a/one.tif", "b/two.tif", "c/two.tif"])
    >>> [names.find(key) for key in ("one", "/data/b/two.tif", "c/two.png", "b/one.tif", "three")]
    ['a/one.tif', 'b/two.tif', 'c/two.tif', None, None]
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self._whole = set(self.names)
        self._ways = [(way, self._by(way)) for way in (str, bare)]

    def _by(self, way: Callable[[str], str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.names:
            found.setdefault(last(way(name)), []).append(name)
        return found

    def find(self, key: Any, where: str = "a table") -> str | None:
        """The id that a key names, None if none; an error where it may be several."""
        text = str(key).strip().replace("\\", "/").removeprefix("./")
        if text in self._whole:
            return text
        for way, known in self._ways:
            some = [name for name in known.get(last(way(text)), ()) if _agree(way(name), way(text))]
            same = [name for name in some if way(name) == way(text)]
            some = same or some
            if len(some) > 1:
                raise UserError(
                    f"{where} names {shown(text)}, which may be {shown(some[0])} or {shown(some[1])}: write it with its"
                    " folder and ending"
                )
            if some:
                return some[0]
        return None


def _agree(one: str, other: str) -> bool:
    return all(a == b for a, b in zip(reversed(one.split("/")), reversed(other.split("/")), strict=False))


def counted(what: str, names: Sequence[Any]) -> str:
    """
    >>> counted("samples have no row", ["a", "b"])
    '2 samples have no row, a first'
    """
    return f"{len(names)} {what}, {shown(str(names[0]))} first"
