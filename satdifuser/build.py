"""From settings to objects: data, encoder, temporal, fusion, decoder, task. Each part's `_target_` is a plain class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from satdifuser.data.base import LabelledDataset
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from satdifuser.augment import Augmentation
    from satdifuser.data.dates import Series
    from satdifuser.model import FeatureModel
    from satdifuser.settings.commands import TrainSettings
    from satdifuser.settings.part import DataPart, Part
    from satdifuser.tasks.base import Task


def build_data(data: DataPart, split: str) -> LabelledDataset:
    made: LabelledDataset = data.split(split)
    return made


def open_split(settings: TrainSettings, split: str, beside: LabelledDataset | None = None) -> LabelledDataset:
    """A split of the store where `features` names one, else of the images.

    `beside` is a split that is open: the other one is of the very same store, whatever lies at its path by now.
    """
    if settings.features is None:
        return build_data(settings.data, split)
    from satdifuser.store import FeatureStore, StoredFeatures

    check = settings.check_features
    store = beside.store if isinstance(beside, StoredFeatures) else FeatureStore(settings.features, check=check)
    spec = store.spec
    if not store.latents:  # of latents, the encoder's own settings say which features are made
        spec = settings.select.of(spec)
    found = store.split(split, spec)
    if not len(found):
        raise UserError(f"{store.path} has no samples in its split {split}: extract some (all may have been skipped)")
    return found


def build_augmentation(settings: TrainSettings, ignore_index: int = 255) -> Augmentation | None:
    """What changes the training images, if anything does; stored features are as they are."""
    from satdifuser.data.bands import find_sensor
    from satdifuser.settings.part import MISSING

    if settings.augmentation is None:
        return None
    sensor = settings.data.sensor
    known = None if sensor in (None, MISSING) else find_sensor(sensor)
    made: Augmentation = settings.augmentation.build(seed=settings.seed, ignore_index=ignore_index, sensor=known)
    if not made.active:
        return None
    if settings.features is not None:
        raise UserError(
            f"augmentation changes images, and {settings.features} holds what was made of them as they were: leave"
            " features out, or set augmentation=none"
        )
    return made


def build_encoder(encoder: Part) -> nn.Module:
    made: nn.Module = encoder.build()
    return made


def series_of(data: Any) -> Series:
    """How many dates the samples of a data set have: a store says it, of images the first sample does."""
    from satdifuser.data.batches import read_sample
    from satdifuser.data.dates import Series
    from satdifuser.store import StoredFeatures

    if isinstance(data, StoredFeatures):
        return Series(data.spec.dates, data.store.has("dates"))
    if not len(data):
        return Series(None, False)
    first = read_sample(data, 0)
    return Series(len(first["image"]) if first["image"].ndim == 4 else None, "dates" in first)


def of_series(spec: Any, dates: int | None) -> Any:
    """An encoder's spec for samples of so many dates (None: of one image)."""
    from dataclasses import replace

    return replace(spec, dates=dates)


def build_task(task: Part, data: LabelledDataset) -> Task:
    made: Task = task.build(labels=data.labels)
    return made


def build_model(settings: TrainSettings, data: LabelledDataset) -> FeatureModel:
    """The whole path for a data set of images, or of features."""
    series = series_of(data)
    check_series(settings.temporal, series, data.name)
    encoder, spec = _source(settings.encoder, data, settings.data)
    if encoder is not None:  # of stored features, `open_split` has read no others
        spec = settings.select.of(spec)
    return assemble(settings, encoder, of_series(spec, series.dates), build_task(settings.task, data))


def check_series(temporal: Part | None, series: Series, name: str) -> None:
    """Whether samples have what a temporal head is for, and several dates one that makes a bank of them."""
    if temporal is None and series.dates is not None:
        raise UserError(
            f"samples of {name} have {series.dates} dates: say what makes one of them, as temporal=mean, max,"
            f" attention{' or difference' if series.dates == 2 else ''}"
        )
    if temporal is not None and series.dates is None:
        raise UserError(
            f"{temporal.label} makes one of several dates, and samples of {name} have one image: set temporal=none"
        )
    if temporal is not None and getattr(temporal.target, "needs_dates", False) and not series.dated:
        raise UserError(
            f"{temporal.label} needs to know when images were taken, and samples of {name} have no dates: set"
            " temporal=mean, max or difference"
        )


def _source(part: Part, data: LabelledDataset, images: DataPart) -> tuple[nn.Module | None, Any]:
    """The encoder, unless the data are features, and the spec of what the fusion head gets."""
    from satdifuser.data.policy import resolved
    from satdifuser.store import StoredFeatures

    if isinstance(data, StoredFeatures) and not data.store.latents:
        adapter = part.get("adapter")
        if adapter is not None and adapter.label != "Frozen":
            raise UserError(
                f"an adapter ({adapter.label}) trains on images, not on stored features: leave features out"
            )
        return None, data.spec
    encoder = build_encoder(resolved(part, images))
    if isinstance(data, StoredFeatures):
        if not hasattr(encoder, "latent_spec"):
            raise UserError(f"{data.store.path} holds latents, which only the encoder that made them can read")
        data.store.require(of_series(encoder.latent_spec, data.spec.dates))
    return encoder, encoder.spec


def assemble(settings: TrainSettings, encoder: nn.Module | None, spec: Any, task: Task) -> FeatureModel:
    """Head and decoder for a spec, with the encoder that gives such banks or larger ones, or none.

    Maps are pooled where `pool` says so, and those of several dates then become one as `temporal` says.
    """
    import torch

    from satdifuser.decoders.fitted import Fitted
    from satdifuser.model import FeatureModel
    from satdifuser.pooling import pooling_for

    pooling, read = pooling_for(spec, settings.pool), spec
    torch.manual_seed(settings.seed)  # the heads' weights depend on the seed, not on what was built before them
    spec = spec if pooling is None else pooling.spec(spec)
    temporal = None if settings.temporal is None else settings.temporal.build(spec=spec)
    fusion = settings.fusion.build(spec=spec if temporal is None else temporal.spec)
    decoder = settings.decoder.build(pyramid=fusion.pyramid, outputs=task.outputs, dense=task.dense)
    if isinstance(decoder, Fitted):
        decoder.check_path(task, encoder=encoder, temporal=temporal, fusion=fusion)
    loss = None if settings.loss is None else settings.loss.build(task=task)
    return FeatureModel(encoder, fusion, decoder, task, pooling, temporal, reads=read, loss=loss)
