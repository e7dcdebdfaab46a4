"""The settings of each command, as they come out of its configuration: typed, and handed on part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Len

from satdifuser.errors import UserError
from satdifuser.kinds import Count, Percent, Place, Positive, Seed, Whole, Word
from satdifuser.settings.base import RunSettings, Settings
from satdifuser.settings.groups import Augmentation, Data, Decoder, Encoder, Fusion, Loss, Task, Temporal
from satdifuser.settings.trainer import TrainerConfig

if TYPE_CHECKING:
    from satdifuser.bank import BankSpec

POOLINGS = "mean, max, moments, quantiles, grid2, grid4 (or any grid<n>)"


class StoreSettings(Settings):
    """How features are written; `workers` null: none for a CPU, up to 8 for a GPU."""

    group: ClassVar[str] = "store"

    path: Place = "features.zarr"
    dtype: Literal["float32", "float16", "bfloat16", "int8"] = "float16"
    keep: Annotated[str, Len(1), Word(f"maps, {POOLINGS} or latents")] = "maps"
    splits: Annotated[list[str], Len(1)] | None = None
    batch_size: Count = 32
    workers: Whole | None = None
    shard_mb: Positive = 256.0
    reuse: bool = False
    overwrite: bool = False


class ExtractSettings(Settings):
    """Of `satdifuser extract`."""

    encoder: Encoder
    data: Data
    store: StoreSettings = StoreSettings()
    seed: Seed = 0
    on_error: Literal["stop", "skip"] = "stop"
    check_data: bool = True
    dry_run: bool = False


class Select(Settings):
    """Which features of an encoder, live or stored, are read; null: all."""

    group: ClassVar[str] = "select"

    timesteps: Annotated[list[Annotated[int, Ge(-1)]], Len(1)] | None = None
    taps: Annotated[list[str], Len(1)] | None = None
    depths: Annotated[list[int], Len(1)] | None = None

    @property
    def all(self) -> bool:
        return self.timesteps is None and self.taps is None and self.depths is None

    def of(self, spec: BankSpec) -> BankSpec:
        """The spec of what is read where an encoder or a store gives `spec`."""
        from satdifuser.bank import BankError

        try:
            return spec.select(timesteps=self.timesteps, names=self.taps, depths=self.depths)
        except BankError as error:
            raise UserError(f"select: {error}") from None


class TrainSettings(RunSettings):
    """Of `satdifuser train`, and of a run for as long as it is kept."""

    encoder: Encoder
    temporal: Temporal | None = None
    fusion: Fusion
    decoder: Decoder
    task: Task
    loss: Loss | None = None
    data: Data
    augmentation: Augmentation | None = None
    trainer: TrainerConfig = TrainerConfig()
    features: Place | None = None
    check_features: bool = True
    select: Select = Select()
    pool: Annotated[str, Len(1), Word(POOLINGS)] | None = None
    init: str | None = None
    run: Place = "runs/latest"
    budget: Percent = 100.0


class EvalSettings(Settings):
    """Of `satdifuser eval`."""

    run: Place = "runs/latest"
    split: str = "test"
    features: Place | None = None


class TapsSettings(Settings):
    """Of `satdifuser taps`."""

    encoder: Encoder
    data: Data
    seed: Seed = 0
    all: bool = False


class DataSettings(Settings):
    """Of `satdifuser data check`, `stats` and `show`."""

    data: Data
    encoder: Encoder | None = None
    splits: Annotated[list[str], Len(1)] | None = None
    samples: Count | None = 2000
    workers: Whole = 0
    output: Place | None = None
    shown: Count = 3
    format: Literal["text", "json", "csv"] = "text"
    seed: Seed = 0


class CompareSettings(Settings):
    """Of `satdifuser compare`; an experiment may have values of its own to refer to (`steps: 120`, then `${steps}`)."""

    model_config = {"extra": "allow"}

    store: StoreSettings = StoreSettings()
    output: Place = "comparison"
    title: str | None = None
    models: dict[str, Any] | None = {}
    tasks: dict[str, Any] | None = {}
    recipe: list[Any] | None = []
    budgets: list[Any] = [100]
    seeds: list[Any] = [0]
    share_features: bool = True
    threads: Count | None = 1
    resamples: Count = 10000
    shown: Whole = 6
    floor: list[str] | None = None
    probe: dict[str, Any] | bool | None = None
    cka: dict[str, Any] | bool | None = None
    dry_run: bool = False
