"""NeuCo-Bench's set (SSL4EO-S12-downstream): numbers about places, seen by Sentinel-1 and 2 in four seasons."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from satdifuser.data.bands import SENTINEL2, SensorName, find_sensor
from satdifuser.data.files.contents import contents
from satdifuser.data.files.fitting import AGAIN, BadImageError
from satdifuser.data.files.names import name_fault, shown
from satdifuser.data.readers.base import Raw, Reader
from satdifuser.data.readers.named.base import find_folder, one_of, places_of
from satdifuser.data.sensors import SENTINEL1
from satdifuser.data.splits.holdout import held_out
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Above, Place, Rate, checked

SPLITS = ("train", "val", "test")
FOLDERS = (
    "data",
    "data_eval",
    "data_dev",
    "",
)  # in which s1, s2l1c and s2l2a lie, as the set was published at some time
LEVELS = {"l2a": tuple(name for name in SENTINEL2.names if name != "B10"), "l1c": SENTINEL2.names}
SEASONS = 4
CODECS = {
    "blosc",
    "bytes",
    "crc32c",
    "gzip",
    "lz4",
    "transpose",
    "zlib",
    "zstd",
}  # zarr knows others, pickle among them


class NeuCo(Reader):
    """The places that a table `labels/<target>__*.csv` has a number for; a sample's id is that of its files.

    `season` is one of the four that an image is of, or null: their mean. The set has no splits: `val` and `test` are
    shares of the places, by a hash of their ids.
    """

    name = "neuco"

    @checked("data")
    def __init__(
        self,
        root: Place,
        split: str = "train",
        *,
        sensor: SensorName,
        target: str,
        level: Literal["l2a", "l1c"] = "l2a",
        season: Literal[0, 1, 2, 3] | None = None,
        val: Rate = 0.1,
        test: Rate = 0.2,
        **above: Above,
    ) -> None:
        one_of(split, SPLITS, self.name)
        self.root = find_folder(root, "labels", "SSL4EO-S12-downstream")
        self.split, self.target, self.season = split, target, season
        known = find_sensor(sensor)
        own = {f"s2{level}": LEVELS[level], "s1": SENTINEL1.names}
        held = {band: (kind, place) for kind, bands in own.items() for place, band in enumerate(bands)}
        self.bands = places_of(known, held, f"{self.name} of level {level}")
        self.kinds = sorted({kind for kind, _ in self.bands.values()}, reverse=True)
        self.numbers = self._table()
        self.paths = self._found()
        names = held_out({"": sorted(self.paths)}, val, test)[split]
        if not names:
            raise UserError(
                f"data.val={val:g} and data.test={test:g} of {len(self.paths)} places leave none for {split}"
            )
        super().__init__(names, sensor=known, **above)

    def _table(self) -> dict[str, float]:
        """Place -> number; a place without one is none of the target's."""
        files = {file.stem.partition("__")[0]: file for file in sorted((self.root / "labels").glob("*__*.csv"))}
        if self.target not in files:
            known = ", ".join(files) or "none"
            raise UserError(
                f"data.target is {self.target!r}, but the tables in {shown(self.root / 'labels')} are of {known}"
                f"{nearest(self.target, files)}"
            )
        file = files[self.target]
        try:
            with file.open(newline="", encoding="utf-8") as opened:
                rows = [(row["id"], row["label"]) for row in csv.DictReader(opened)]
            found = {name: float(number) for name, number in rows if number}
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(f"{shown(file)} is no table of id and label ({shown(str(error))}): {AGAIN}") from error
        odd = next((name for name, number in found.items() if name_fault(name) or not math.isfinite(number)), None)
        if odd is not None or not found:
            raise UserError(f"{shown(file)} {'has ' + shown(odd) if odd is not None else 'has no numbers'}: {AGAIN}")
        return found

    def _found(self) -> dict[str, dict[str, Path]]:
        """Place -> kind -> file, of those places of which all that is read is there."""
        of_kind: dict[str, dict[str, Path]] = {}
        for kind in self.kinds:
            folders = [self.root / folder / kind for folder in FOLDERS]
            there = next((folder for folder in folders if folder.is_dir()), None)
            if there is None:
                raise UserError(f"{shown(self.root)} has no {FOLDERS[0]}/{kind}: {AGAIN}")
            of_kind[kind] = {file.name.removesuffix(".zarr.zip"): file for file in there.glob("*/*.zarr.zip")}
        whole = set(self.numbers).intersection(*of_kind.values())
        if not whole:
            raise UserError(f"{shown(self.root)} has no images of the places of {self.target}: {AGAIN}")
        return {name: {kind: of_kind[kind][name] for kind in self.kinds} for name in whole}

    @property
    def about(self) -> dict[str, Any]:
        return {"split": self.split, "target": self.target, "season": self.season, "kinds": self.kinds}

    def files(self, name: str) -> list[Path]:
        return list(self.paths[name].values())

    def fingerprint(self) -> str:
        return contents([next(iter(self.paths[name].values())) for name in self.names[:8]])

    def read(self, name: str) -> Raw:
        found = {kind: self._seasons(kind, file) for kind, file in self.paths[name].items()}
        return Raw([found[kind][place] for kind, place in self.bands.values()], self.answer(name))

    def answer(self, name: str) -> Any:
        return None if self.label is None else self.numbers[name]

    def _seasons(self, kind: str, file: Path) -> Any:
        """The bands `[bands, height, width]` of the season that is read, or the mean of all."""
        import zarr
        from zarr.storage import ZipStore

        with ZipStore(file, mode="r") as store:
            array: Any = zarr.open_group(store, mode="r")["bands"]
            other = sorted(_codecs(array.metadata.to_dict()) - CODECS)
            if other or array.dtype.kind not in "iuf":
                raise BadImageError(f"has bands of {array.dtype} packed with {', '.join(other) or 'nothing'}: {AGAIN}")
            shape, count = array.shape[-4:], len(SENTINEL1) if kind == "s1" else len(LEVELS[kind[2:]])
            if any(size != 1 for size in array.shape[:-4]) or shape[:2] != (SEASONS, count):
                raise BadImageError(f"has bands of the shape {array.shape}, not [{SEASONS}, {count}, h, w]: {AGAIN}")
            self.fitting.check_room(array.size, *shape[2:])
            values = np.asarray(array[...]).reshape(shape)
        return values.mean(0, dtype=np.float32) if self.season is None else values[self.season]


def _codecs(said: dict[str, Any]) -> set[str]:
    """What an array's description packs its chunks with, in either format of zarr."""
    parts = [*(said.get("codecs") or ()), *(said.get("filters") or ()), said.get("compressor")]
    given = [part if isinstance(part, dict) else part.get_config() for part in parts if part is not None]
    return {str(part.get("id", part.get("name"))) for part in given}
