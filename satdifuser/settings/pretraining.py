"""The settings of `satdifuser pretrain`, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Len

from satdifuser.errors import UserError
from satdifuser.kinds import Count, NotNegative, Place, Positive, Precision, Rate, Share, Whole
from satdifuser.settings.base import RunSettings, Settings
from satdifuser.settings.groups import Data, Encoder, Input
from satdifuser.settings.trainer import accumulates_within, falls

Weights = Literal["float32", "float16", "bfloat16"]


class Recipe(Settings):
    """`batch_size` is what one optimiser step sees, over all processes; `ema` null: the last weights are the result.

    `minutes` ends this time's training early, with a checkpoint: for machines that are lent by the hour.
    """

    group: ClassVar[str] = "recipe"

    steps: Count = 5000
    batch_size: Count = 64
    accumulate: Count = 1
    lr: Positive = 6e-4
    min_lr: NotNegative = 0.0
    warmup: Whole = 250
    weight_decay: NotNegative = 1e-4
    betas: Annotated[Sequence[Rate], Len(2, 2)] = [0.9, 0.999]
    clip_norm: Positive | None = 1.0
    ema: Rate | None = 0.999
    mixed_precision: Precision = "no"
    augment: bool = True
    minutes: Positive | None = None
    save_every: Count | None = None
    eval_every: Count = 500
    eval_images: Count = 256
    levels: Annotated[Sequence[Whole], Len(1)] = [21, 61, 161, 301, 501, 801]
    samples: Whole = 16
    workers: Whole = 0
    tensorboard: bool = True

    def model_post_init(self, context: object) -> None:
        accumulates_within(self.group, self.accumulate, self.batch_size)
        falls(self.group, self.lr, self.min_lr)


class Schedule(Settings):
    """Of diffusers' `DDPMScheduler`, which may be given more of its settings (`+schedule.NAME=...`)."""

    model_config = {"extra": "allow"}
    group: ClassVar[str] = "schedule"

    num_train_timesteps: Count = 1000
    beta_schedule: str = "scaled_linear"
    beta_start: Rate = 0.00085
    beta_end: Rate = 0.012
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "v_prediction"

    def model_post_init(self, context: object) -> None:
        if self.beta_start > self.beta_end:
            raise UserError(f"schedule.beta_start ({self.beta_start:g}) cannot exceed beta_end ({self.beta_end:g})")


class Align(Settings):
    """What else the UNet learns at one of its places, with parts that are thrown away (REPA, VICReg).

    `weight` is that of the likeness to a `teacher`, `views` that of two views' loss; null: no views.
    """

    group: ClassVar[str] = "align"

    tap: str = "mid_block"
    weight: Positive = 0.5
    width: Count = 512
    components: Count | None = None
    views: Positive | None = None


class Autoencoder(Settings):
    """The VAE before the UNet: none (null: pixels), `small` (trained first, as the rest says), or a folder's."""

    group: ClassVar[str] = "vae"

    weights: str | None = None
    block_out_channels: Annotated[list[Count], Len(1)] = [32, 64, 128]
    latent_channels: Count = 4
    kl: NotNegative = 1e-6
    steps: Count = 3000
    lr: Positive = 1e-3


class Card(Settings):
    """What the model's README.md says beside what is known."""

    group: ClassVar[str] = "card"

    title: str = "A small geospatial diffusion model"
    licence: str = "other"
    data: list[str] = []
    limits: list[str] = []


class PretrainSettings(RunSettings):
    """`unet` is what diffusers' `UNet2DModel` takes."""

    data: Data
    mix: Data | None = None
    teacher: Encoder | None = None
    unet: dict[str, Any]
    run: Place = "runs/pretrain"
    on_error: Literal["stop", "skip"] = "stop"
    mix_share: Share = 0.125
    prepare: Input
    init: str | None = None
    schedule: Schedule = Schedule()
    min_snr: Positive | None = 5.0
    level_power: Positive = 1.0
    align: Align = Align()
    vae: Autoencoder = Autoencoder()
    recipe: Recipe = Recipe()
    export: Weights = "float16"
    card: Card = Card()

    def model_post_init(self, context: object) -> None:
        steps = self.schedule.num_train_timesteps
        beyond = [level for level in self.recipe.levels if level >= steps]
        if beyond:
            raise UserError(
                f"recipe.levels has {beyond[0]}, but schedule.num_train_timesteps is {steps}: give levels below it"
            )
