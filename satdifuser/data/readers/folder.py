"""A tree of images, a folder for each class (or none at all), as a labelled data set: JPEG, PNG and GeoTIFF."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len

from satdifuser.data.bands import SensorName
from satdifuser.data.files.called import check_order
from satdifuser.data.files.fitting import SKIP
from satdifuser.data.files.images import open_image
from satdifuser.data.files.names import name_bytes, name_fault, shown
from satdifuser.data.files.opened import Alpha, Ask
from satdifuser.data.files.tree import by_class, find_root, warn_once
from satdifuser.data.readers.base import Answer, Raw, Reader
from satdifuser.data.scaling import ScalingWords
from satdifuser.data.splits.holdout import check_split, held_out
from satdifuser.errors import UserError
from satdifuser.kinds import Above, Rate, Side, Word, checked

IMAGES, MASKS = ("images", "image", "img", "imgs"), ("masks", "mask", "labels", "label", "annotations")
WHITE = {"numbers": "auto", "white": 0.275}


class ImageFolder(Reader):
    """The images below `root`; the first folder on the way to an image is its class, and images in `root` have none.

    A sample's id is its path below `root`. `split` is train, val, test (see `holdout.py` for the rule) or all.
    `classes` names the folders that count, in order; null: all, sorted. `exclude` leaves images out by patterns of
    their ids, after the split is made, so that no other image changes its part.
    """

    name = "image_folder"

    @checked("data")
    def __init__(
        self,
        root: Annotated[str, Len(1), Word("a path")],
        split: str = "train",
        *,
        sensor: SensorName,
        size: Side = 64,
        val: Rate = 0.1,
        test: Rate = 0.1,
        scaling: ScalingWords = WHITE,
        classes: Annotated[list[str | int], Len(1)] | None = None,
        exclude: Annotated[list[str], Len(1)] | None = None,
        alpha: Alpha = "mask",
        descriptions: Literal["compare", "ignore"] = "compare",
        **above: Above,
    ) -> None:
        check_split(split)
        self.root, self.split, self.alpha = find_root(root), split, alpha
        self.compare_names = descriptions == "compare"
        names = by_class(self.root, None if classes is None else [str(name) for name in classes])
        _refuse_masks(self.root, names)
        left_out = _matching(exclude or (), [name for members in names.values() for name in members])
        found = [name for name in held_out(names, val, test)[split] if name not in left_out]
        if not found:
            raise UserError(
                f"data.root {shown(self.root)} has no images for {split}: of {_count(names)}, data.val={val} and"
                f" data.test={test} of each class leave none{' without data.exclude' if left_out else ''}; set other"
                " shares, or add images"
            )
        known = list(names) if list(names) != [""] else []
        label: Answer | None = "label" if known else None
        super().__init__(found, sensor=sensor, size=size, scaling=scaling, classes=known, label=label, **above)
        shows = {name.partition("/")[0] for name in self.names}
        absent = [name for name in known if name not in shows]
        if absent:
            some = ", ".join(absent[:5]) + f" and {len(absent) - 5} more" * (len(absent) > 5)
            warn_once(
                f"data.root {shown(self.root)} has no images of {some} for {split}: nothing is known of them there"
            )

    @property
    def about(self) -> dict[str, Any]:
        return {"split": self.split, "names and sizes": self._digest, "alpha": self.alpha}

    @cached_property
    def _digest(self) -> str:
        sizes = (f"{name}\0{size_of(f'{self.root}/{name}')}" for name in self.names)
        return hashlib.blake2b(name_bytes("\n".join(sizes)), digest_size=8).hexdigest()

    def files(self, name: str) -> list[Path]:
        return [self.root / name]

    def read(self, name: str) -> Raw:
        fault = name_fault(name)
        if fault is not None:
            raise UserError(f"{shown(self.root / name)} {fault}: rename it {SKIP}")
        with open_image(self.root / name, Ask(bands=len(self.sensor), alpha=self.alpha)) as image:
            self.fitting.check(image.count, image.height, image.width)
            if self.compare_names:
                check_order(self.root / name, image.names, self.sensor, [(n, n) for n in range(image.count)])
            window = self.fitting.part(image.height, image.width)
            found = image.part(range(image.count), self.fitting, *window)
        return Raw(
            list(found.numbers), self.answer(name), () if found.blank is None else list(found.blank), found.own or ()
        )

    def answer(self, name: str) -> str:
        return name.partition("/")[0]


def _refuse_masks(root: Path, names: dict[str, list[str]]) -> None:
    """Say of images with masks beside them which reader is theirs: they are no two classes."""
    known = {name.lower(): name for name in names}
    images = next((known[name] for name in IMAGES if name in known), None)
    masks = next((known[name] for name in MASKS if name in known), None)
    if images is None or masks is None or len(names) > 3:
        return
    ends = [Path(names[part][0]).suffix for part in (images, masks)]
    raise UserError(
        f"data.root {shown(root)} has images in {images}/ and masks in {masks}/, which are no classes: read them with"
        f" data=rasters data.root={shown(root)} data.images='{images}/{{id}}{ends[0]}'"
        f" data.masks='{masks}/{{id}}{ends[1]}' data.size=64 data.sensor=... (the bands of the images, in order)"
    )


def size_of(path: str) -> int:
    """The size of a file; -1 of one that cannot be asked, which is for its reader to say."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 (of each of perhaps 100,000)
    except OSError:
        return -1


def _matching(patterns: Iterable[str], names: Sequence[str]) -> set[str]:
    """The names that one of the patterns fits; a pattern that fits none is an error."""
    found: set[str] = set()
    for pattern in patterns:
        fits = {name for name in names if fnmatchcase(name, pattern)}
        if not fits:
            raise UserError(
                f"data.exclude has {shown(pattern)}, which fits the id of no image: ids are as {shown(names[0])}"
            )
        found |= fits
    return found


def _count(names: dict[str, list[str]]) -> str:
    return f"{sum(map(len, names.values()))} images in {len(names)} classes"
