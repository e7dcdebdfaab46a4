"""Large images as many samples: where their tiles begin, and what is done at the edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Count, Whole, Word, check, check_fields, hints_of

TileWords = Annotated[
    int | dict[str, Any], Word("a side in px, or {size: 256, stride: 128} or {size: 256, overlap: 32, edge: shift}")
]


@dataclass(frozen=True)
class Tiling:
    """Squares of `size` px, each `stride` px from the last.

    At the right and lower edge, what is less than a tile is left out (`drop`), or a last tile begins further back
    (`shift`), or it is filled up with pixels without data (`pad`).

    >>> [Tiling(4, 3, edge).starts(9) for edge in ("drop", "shift", "pad")]
    [[0, 3], [0, 3, 5], [0, 3, 6]]
    """

    size: Count
    stride: Count
    edge: Literal["drop", "shift", "pad"] = "drop"

    def __post_init__(self) -> None:
        check_fields(self, "data.tile")

    @classmethod
    def of(cls, words: Any) -> Tiling:
        given = {"size": words} if isinstance(words, int) else dict(words)
        known = (*hints_of(cls), "overlap")
        for key in given:
            if key not in known:
                raise UserError(f"there is no setting data.tile.{key}: it has {', '.join(known)}{nearest(key, known)}")
        if "size" not in given:
            raise UserError("data.tile has no size: give the side of a tile, as data.tile={size: 256}")
        overlap = check(given.pop("overlap", 0), Whole, "data.tile.overlap")
        if overlap and "stride" in given:
            raise UserError("data.tile has an overlap and a stride: the stride is size - overlap, so give one of them")
        if isinstance(given["size"], int) and overlap >= given["size"]:
            raise UserError(f"data.tile.overlap is {overlap}: it must be below data.tile.size, {given['size']}")
        given.setdefault("stride", given["size"] - overlap if isinstance(given["size"], int) else given["size"])
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        return {"size": self.size, "stride": self.stride, "edge": self.edge}

    def starts(self, side: int) -> list[int]:
        """Where tiles begin along a side of so many pixels."""
        whole = list(range(0, side - self.size + 1, self.stride))
        reached = whole[-1] + self.size if whole else 0
        if self.edge == "drop" or reached >= side:
            return whole
        if self.edge == "shift":
            return [*whole, side - self.size] if side >= self.size else []
        following = whole[-1] + self.stride if whole else 0
        return [*whole, following] if following < side else whole

    def of_image(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of the upper left corners."""
        return [(row, column) for row in self.starts(height) for column in self.starts(width)]
