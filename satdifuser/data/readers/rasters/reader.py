"""Images and labels as people have them: found by patterns, masked, labelled by a table or a folder, cut into tiles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Gt, Le, Len

from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.classes import ClassWords
from satdifuser.data.files.names import name_bytes, shown
from satdifuser.data.files.opened import Alpha, Ask, Axes
from satdifuser.data.files.tree import find_root, warn_once
from satdifuser.data.readers.base import Answer, Raw, Reader
from satdifuser.data.readers.folder import size_of
from satdifuser.data.readers.rasters.finding import Found, find
from satdifuser.data.readers.rasters.masks import by_number, classes_in, coloured, read_mask, said_of_values, values_in
from satdifuser.data.readers.rasters.pixels import Pixels, Spot
from satdifuser.data.readers.rasters.said import TableWords
from satdifuser.data.readers.rasters.sources import PatternWords
from satdifuser.data.readers.rasters.tiles import TileWords, Tiling
from satdifuser.data.scaling import ScalingWords
from satdifuser.data.splits.evenly import evenly
from satdifuser.data.splits.places import Footprint
from satdifuser.data.splits.rules import SplitWords
from satdifuser.errors import UserError
from satdifuser.kinds import Above, Count, Side, Word, checked


class Rasters(Reader):
    """Samples of GeoTIFF, PNG, JPEG, NPY or HDF5 below `root`, whose names the pattern `images` has.

    An id is what `{id}` stands for in it, or else the path of the (first) file. Labels are masks, a `{class}` in the
    pattern, or columns of a table. With `tile` each image is many samples, `id#row,column` of their first pixels.
    """

    name = "rasters"

    @checked("data")
    def __init__(
        self,
        root: Annotated[str, Len(1), Word("a path")],
        split: str = "train",
        *,
        images: PatternWords,
        sensor: SensorName,
        size: Side,
        masks: str | None = None,
        bands: Annotated[list[str], Len(1)] | None = None,
        label: Answer | None = None,
        classes: ClassWords | None = None,
        table: TableWords | None = None,
        split_by: SplitWords = "hash",
        exclude: list[str] | None = None,
        tile: TileWords | None = None,
        skip_blank: Annotated[float, Gt(0), Le(1)] | None = None,
        stacked: bool = False,
        scaling: ScalingWords = "auto",
        alpha: Alpha = "mask",
        axes: Axes | None = None,
        georeference: Literal["compare", "ignore"] = "compare",
        descriptions: Literal["compare", "ignore"] = "compare",
        limit: Count | None = None,
        **above: Above,
    ) -> None:
        self.root, self.split, known = find_root(root), split, find_sensor(sensor)
        self.tiling = None if tile is None else Tiling.of(tile)
        self.said: dict[str, Any] = {"images": images, "masks": masks, "in the files": bands}
        self.said |= {"alpha": alpha, "axes": axes, "stacked": stacked}
        self.skip_blank, self.colours = skip_blank, coloured(classes)
        self.mask_ask = Ask("colours", 3, axes=axes) if self.colours else Ask("numbers", 1, axes=axes)
        compared = georeference == "compare", descriptions == "compare"
        self.pixels = Pixels(self.root, images, bands, known, Ask(alpha=alpha, axes=axes), *compared)
        found = find(
            self.pixels,
            self.tiling,
            split,
            masks=masks,
            table=table,
            classes=classes,
            label=label,
            split_by=split_by,
            exclude=exclude or [],
            many=stacked,
            mask_ask=self.mask_ask,
        )
        self.found: Found = found
        if found.label == "mask" and not classes:
            self._ask_classes(above.get("ignore"))
        super().__init__(
            found.names,
            sensor=known,
            size=size,
            label=found.label,
            classes=self._classes(classes),
            scaling=scaling,
            **above,
        )
        self.fitting = replace(self.fitting, tiles=self.tiling is None and not stacked)
        if self.tiling and self.tiling.size != self.size and self.fit == "none":
            raise UserError(
                f"data.tile.size is {self.tiling.size}, and data.size is {self.size}: set them alike, or say with"
                " data.fit how one becomes the other"
            )
        if skip_blank is not None:
            self.names = [name for name in self.names if self._shown_of(name) > 1 - skip_blank]
            gone = len(found.names) - len(self.names)
            warn_once(f"data.skip_blank={skip_blank:g} leaves out {gone} of {len(found.names)} samples of {split}")
            if not self.names:
                mend = "set it higher, or null" if skip_blank < 1 else f"give {split} other samples, or set it to null"
                raise UserError(f"data.skip_blank={skip_blank:g} leaves no sample of {split}: {mend}")
        self.names = evenly(self.names, limit)

    def _classes(self, classes: Any) -> Any:
        if self.found.label == "target":
            return None
        return by_number(classes) if self.colours else classes if classes is not None else self.found.classes

    def _ask_classes(self, ignore: Any) -> None:
        """The error of a mask without classes, which says the values that some have."""
        items = [self._spot(name).item for name in self.found.names]
        masks = dict.fromkeys((str(item.mask), item.number) for item in items)  # of tiles, those of one image are one
        key = None if self.found.masks is None else self.found.masks.key
        asks = [(self.root / mask, key, replace(self.mask_ask, item=number)) for mask, number in masks]
        said = said_of_values(asks, ignore if isinstance(ignore, list) else [ignore])
        raise UserError(f"data.classes is not set, and data.label=mask needs the names of its classes{said}")

    # Where a sample lies, for splits in blocks and for whoever asks.

    def bounds(self, name: str) -> tuple[float, float, float, float] | None:
        """Left, bottom, right and top of a sample in the units of its `crs`; None where its file says no place."""
        spot = self._spot(name)
        place = self.pixels.place(spot)
        return None if place is None else place.bounds(*(spot.window or (None, None)))

    def crs(self, name: str) -> Any:
        """The reference system of a sample (rasterio's); None where its file names none."""
        place = self.pixels.place(self._spot(name))
        return None if place is None else place.crs

    def footprint(self, name: str) -> Footprint | None:
        """The same as four corners."""
        spot = self._spot(name)
        return self.pixels.footprint(spot) or self.found.footprints.get(spot.id)

    # Reading.

    def _spot(self, name: str) -> Spot:
        return self.found.spots[name]

    def files(self, name: str) -> list[Path]:
        item = self._spot(name).item
        return [self.root / path for path in (*item.paths, *([] if item.mask is None else [item.mask]))]

    def read(self, name: str) -> Raw:
        spot = self._spot(name)
        raw = self.pixels.read(spot, self.fitting, self.tiling)
        raw.answer = self.answer(name)
        raw.metadata = self.found.metadata.get(spot.id)
        return raw

    def answer(self, name: str) -> Any:
        spot = self._spot(name)
        if self.label is None or self.found.masks is None or self.label not in ("mask", "target"):
            return self.found.answers.get(spot.id)
        if spot.id in self.found.answers:
            return self.found.answers[spot.id]
        path, key = self.root / str(spot.item.mask), self.found.masks.key
        ask = replace(self.mask_ask, item=spot.item.number)
        rows, columns = self.pixels.mask_window(spot, self.fitting, path, key, ask)
        mask = read_mask(path, key, ask, rows, columns)
        if self.label == "mask":
            found: Any = classes_in(mask, self.table, path, self.colours)
            outside: float = self.labels.ignore_index
        else:
            found, outside = torch.from_numpy(values_in(mask, list(self.table.numbers))), float("nan")
        if self.tiling is None:
            return found
        height, width = found.shape
        full = found.new_full((self.tiling.size, self.tiling.size), outside)
        full[:height, :width] = found
        return full if self.label == "mask" else full.numpy()

    def _shown_of(self, name: str) -> float:
        """Which share of a sample has data in any band."""
        with self._naming(name):
            raw = self.pixels.read(self._spot(name), self.fitting, self.tiling)
            height, width = (max(band.shape[axis] for band in raw.bands) for axis in (-2, -1))
            blanks = raw.blank or [None] * len(raw.bands)
            gone = np.ones((height, width), bool)
            for numbers, blank in zip(raw.bands, blanks, strict=True):
                own = self._blank(numbers) if blank is None else self._blank(numbers) | blank
                if own.shape == gone.shape:
                    gone &= own
        return float(1 - gone.mean())

    # What a store knows it by.

    @property
    def about(self) -> dict[str, Any]:
        return {
            "split": self.split,
            **{key: value for key, value in self.said.items() if value not in (None, False)},
            "split by": self.found.rule.to_dict(),
            **({} if self.tiling is None else {"tile": self.tiling.to_dict()}),
            **({} if self.skip_blank is None else {"skip_blank": self.skip_blank}),
            "sizes of files": self._digest(f"{path}\0{size_of(str(self.root / path))}" for path in self._paths()),
            **({"table": self._digest(self._told())} if self.found.answers or self.found.metadata else {}),
        }

    def _paths(self) -> list[str]:
        items = (self._spot(name).item for name in self.names)
        return sorted({path for item in items for path in (*item.paths, *([] if item.mask is None else [item.mask]))})

    def _told(self) -> Sequence[str]:
        ids = sorted({self._spot(name).id for name in self.names})
        return [
            json.dumps([one, self.found.answers.get(one), self.found.metadata.get(one)], default=str) for one in ids
        ]

    @staticmethod
    def _digest(parts: Any) -> str:
        return hashlib.blake2b(name_bytes("\n".join(parts)), digest_size=8).hexdigest()

    def where(self, name: str) -> str:
        spot = self._spot(name)
        path = shown(self.root / spot.item.paths[0])
        return path if spot.window is None else f"{path} (tile {name.rpartition('#')[2]})"
