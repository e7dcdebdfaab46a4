"""The built-in data set: procedural scenes as a labelled data set for every task, with nothing to download."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch.utils.data import Dataset

from satdifuser.data.bands import SENTINEL2, Sensor
from satdifuser.data.base import Labels, Sample
from satdifuser.data.synthetic.scenes import CLOUD_RATE, NODATA_RATE, SCALE, Scene, render, render_year
from satdifuser.data.synthetic.spectra import CLASSES, COLOURS, IGNORE
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Seed, Share, Unit, checked

# Splits are ranges of scene numbers, so that any length can be asked for and no split runs into another.
FIRST = {"train": 0, "val": 1_000_000, "test": 2_000_000, "pretrain": 3_000_000}


Length = Annotated[int, Ge(1), Le(1_000_000)]
Dates = Annotated[int, Ge(1), Le(366)]
SceneSide = Annotated[int, Ge(16), Unit("px")]


class Remembered:
    """Scenes that this process has rendered, up to so many bytes; data sets that show the same scenes share them."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes, self.full = limit, 0, False
        self._scenes: dict[tuple[float, ...], Scene] = {}

    def scene(self, seed: int, index: int, size: int, nodata: float, cloud: float, dates: int | None = None) -> Scene:
        key = (seed, index, size, nodata, cloud, dates or 0)
        scene = self._scenes.get(key)
        if scene is None:
            chances = {"nodata": nodata, "cloud": cloud}
            scene = (
                render(seed, index, size, **chances)
                if dates is None
                else render_year(seed, index, size, dates, **chances)
            )
            self.full = self.bytes + scene.image.nbytes > self.limit
            if not self.full:
                self._scenes[key] = scene
                self.bytes += scene.image.nbytes
        return scene


REMEMBERED = Remembered(2**29)  # a scene of 64 px takes 100 KB, and 13 ms to render


class SyntheticScenes(Dataset[Sample]):
    """Scene `i` of a split, rendered when it is asked for (see `scenes.py` for why it is the same everywhere).

    With `dates` a sample is that many images of one year.
    """

    name = "synthetic"
    sensor: Sensor = SENTINEL2
    labels = Labels(classes=CLASSES, colours=COLOURS, ignore_index=IGNORE)

    @checked("data")
    def __init__(
        self,
        split: str = "train",
        length: Length = 1024,
        *,
        size: SceneSide = 64,
        seed: Seed = 0,
        nodata: Share = NODATA_RATE,
        cloud: Share = CLOUD_RATE,
        dates: Dates | None = None,
    ) -> None:
        if split not in FIRST:
            raise UserError(
                f"the built-in data has no split {split!r}: it has {', '.join(FIRST)}{nearest(split, FIRST)}"
            )
        self.split, self.length, self.size, self.seed = split, length, size, seed
        self.nodata, self.cloud, self.dates = nodata, cloud, dates

    @property
    def identity(self) -> dict[str, object]:
        """What a feature store records of where its samples come from."""
        return {
            "name": self.name,
            "split": self.split,
            "length": self.length,
            "size": self.size,
            "seed": self.seed,
            "nodata": self.nodata,
            "cloud": self.cloud,
            **({} if self.dates is None else {"dates": self.dates}),
        }

    def sample_id(self, index: int) -> str:
        return f"scene-{self.seed}-{FIRST[self.split] + index}"

    def __len__(self) -> int:
        return self.length

    def remember(self) -> None:
        """Render now what will be asked for, as far as there is room."""
        for index in range(self.length):
            if REMEMBERED.full:
                return
            self._scene(index)

    def _scene(self, index: int) -> Scene:
        return REMEMBERED.scene(self.seed, FIRST[self.split] + index, self.size, self.nodata, self.cloud, self.dates)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        scene = self._scene(index)
        sample: Sample = {
            "id": self.sample_id(index),
            "image": torch.from_numpy(scene.image.astype("float32")) / SCALE,
            "mask": torch.from_numpy(scene.mask).long(),
            "label": torch.tensor(scene.label),
            "multilabel": torch.from_numpy(scene.multilabel).float(),
            "target": torch.tensor(scene.vegetation, dtype=torch.float32),
        }
        if self.dates is not None:
            sample["dates"] = torch.tensor(scene.days)
        return sample
