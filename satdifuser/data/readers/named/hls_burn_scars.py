"""HLS Burn Scars: burnt ground of the United States in Harmonized Landsat Sentinel-2, six bands of 512 px at 30 m."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.files.fitting import AGAIN
from satdifuser.data.files.names import shown
from satdifuser.data.readers.base import Raw, Reader
from satdifuser.data.readers.named.base import find_folder, listed, one_of, places_of, raw_of, read_bands
from satdifuser.data.sensors import HLS
from satdifuser.data.splits.holdout import held_out
from satdifuser.errors import UserError
from satdifuser.kinds import Above, Place, Rate, checked

SPLITS = ("train", "val", "test")
BANDS = {band: place for place, band in enumerate(HLS.names)}
IMAGE, MASK = "_merged.tif", ".mask.tif"
FOLDERS = ("data", "training", "validation")
Scheme = Literal["held_out", "both", "lists"]


class HLSBurnScars(Reader):
    """The scenes of a split; a sample's id is its file's name without `_merged.tif`.

    The set has `training` and `validation`. `scheme` says what they are: with `held_out`, `validation` is for testing,
    and `val` of `training` is for validation, by a hash of names; with `both`, `validation` is for both, as much of the
    field has it; with `lists`, `splits/train.txt`, `val.txt` and `test.txt` name the scenes.
    """

    name = "hls_burn_scars"

    @checked("data")
    def __init__(
        self,
        root: Place,
        split: str = "train",
        *,
        sensor: SensorName,
        scheme: Scheme = "held_out",
        val: Rate = 0.1,
        **above: Above,
    ) -> None:
        one_of(split, SPLITS, self.name)
        holds = "splits" if scheme == "lists" else "training"
        self.root, self.split, self.scheme, self.val = find_folder(root, holds, "hls_burn_scars"), split, scheme, val
        known = find_sensor(sensor)
        self.bands = places_of(known, BANDS, self.name)
        later = split == "test" or (split == "val" and scheme == "both")
        self.folders = FOLDERS if scheme == "lists" else ("validation",) if later else ("training",)
        super().__init__(self._names(), sensor=known, **above)

    def _names(self) -> list[str]:
        if self.scheme == "lists":
            return listed(self.root / "splits" / f"{self.split}.txt", lambda line: line.removesuffix(IMAGE))
        folder = self.root / self.folders[0]
        names = sorted(path.name.removesuffix(IMAGE) for path in folder.glob(f"[!.]*{IMAGE}"))
        if not names:
            raise UserError(f"{shown(folder)} has no images (*{IMAGE}), or is not there: {AGAIN}")
        if self.scheme == "both" or self.split == "test":
            return names
        found = held_out({"": names}, self.val, 0.0)[self.split]
        if not found:
            raise UserError(f"data.val={self.val} of {len(names)} scenes leaves none for {self.split}: set another")
        return found

    @property
    def about(self) -> dict[str, Any]:
        return {"split": self.split, "scheme": self.scheme}

    def files(self, name: str) -> list[Path]:
        where = (self.root / folder for folder in self.folders)
        found = next((folder for folder in where if (folder / f"{name}{IMAGE}").is_file()), self.root / self.folders[0])
        return [found / f"{name}{kind}" for kind in (IMAGE, MASK)]

    def read(self, name: str) -> Raw:
        image, _ = self.files(name)
        return raw_of(read_bands(image, self.fitting, list(self.bands.values()), len(BANDS)), self.answer(name))

    def answer(self, name: str) -> Any:
        return None if self.label is None else read_bands(self.files(name)[1], self.fitting)[0][0]
