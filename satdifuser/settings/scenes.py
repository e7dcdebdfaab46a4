"""The settings of the commands for whole scenes: `satdifuser predict`, `embed` and `evaluate-map`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt, Len, Lt

from satdifuser.data.bands import SensorName
from satdifuser.kinds import Count, Place, Seed, Side, Whole, Word
from satdifuser.settings.base import Settings
from satdifuser.settings.commands import POOLINGS, Select
from satdifuser.settings.groups import Data, Encoder

SceneWords = Place | Annotated[list[Place], Len(1)]
Level = Annotated[float, Gt(0), Lt(1)]
Scaling = Annotated[
    str | dict[str, Any], Word("as data.scaling")
]  # read by satdifuser/data/scaling.py, which loads torch


class WindowSettings(Settings):
    """Windows over a scene; null: what suits what is made."""

    group: ClassVar[str] = "window"

    size: Side | None = None
    margin: Whole | None = None
    overlap: Whole | None = None
    batch_size: Count | None = None


class ReadingSettings(Settings):
    """What of a scene's files is read, and how; null: as the training images were."""

    group: ClassVar[str] = "reading"

    sensor: SensorName | None = None
    bands: Annotated[list[str], Len(1)] | dict[str, str] | None = None
    scaling: Scaling | None = None
    nodata: list[float] | float | None = None
    nan: Literal["error", "nodata"] | None = None
    resampling: Literal["bilinear", "nearest"] = "bilinear"


class SceneSettings(Settings):
    """What all commands that go over scenes are told."""

    scene: SceneWords
    out: Place
    window: WindowSettings = WindowSettings()
    reading: ReadingSettings = ReadingSettings()
    format: Literal["tif", "zarr", "parquet"] | None = None
    jobs: Count | None = None
    parts: Count = 1
    threads: Count | None = None
    preview: bool = False
    overwrite: bool = False
    dry_run: bool = False


class PredictSettings(SceneSettings):
    """Of `satdifuser predict`."""

    run: Place = "runs/latest"
    output: Literal["classes", "probabilities", "logits", "values"] | None = None
    dtype: Literal["uint8", "uint16", "float32"] | None = None
    stride: Side | None = None


class EmbedSettings(SceneSettings):
    """Of `satdifuser embed`."""

    encoder: Encoder
    data: Data
    run: Place | None = None
    select: Select = Select()
    stride: Side | None = None
    pool: Annotated[str, Len(1), Word(POOLINGS)] | None = None
    dtype: Literal["float32", "float16", "int8"] = "float16"
    seed: Seed = 0


class EvaluateMapSettings(Settings):
    """Of `satdifuser evaluate-map`."""

    map: Place
    reference: Place
    column: str | None = None
    classes: dict[str, Any] | list[str] | None = None
    strata: Place | None = None
    design: Literal["stratified", "simple"] = "stratified"
    units: Literal["objects", "pixels"] = "objects"
    level: Level = 0.95
    output: Place | None = None
    overwrite: bool = False
