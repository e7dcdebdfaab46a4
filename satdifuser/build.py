"""From settings to objects: data, encoder, fusion, decoder, task. Each part's `_target_` is an ordinary class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from satdifuser.data.base import LabelledDataset
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from satdifuser.augment import Augmentation
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
        spec = spec.select(timesteps=settings.select.timesteps, names=settings.select.taps)
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


def build_task(task: Part, data: LabelledDataset) -> Task:
    made: Task = task.build(labels=data.labels)
    return made


def build_model(settings: TrainSettings, data: LabelledDataset) -> FeatureModel:
    """The whole path for a data set of images, or of features."""
    encoder, spec = _source(settings.encoder, data)
    return assemble(settings, encoder, spec, build_task(settings.task, data))


def _source(part: Part, data: LabelledDataset) -> tuple[nn.Module | None, Any]:
    """The encoder, unless the data are features, and the spec of what the fusion head gets."""
    from satdifuser.store import StoredFeatures

    if isinstance(data, StoredFeatures) and not data.store.latents:
        adapter = part.get("adapter")
        if adapter is not None and adapter.label != "Frozen":
            raise UserError(
                f"an adapter ({adapter.label}) trains on images, not on stored features: leave features out"
            )
        return None, data.spec
    encoder = build_encoder(part)
    if isinstance(data, StoredFeatures):
        if not hasattr(encoder, "latent_spec"):
            raise UserError(f"{data.store.path} holds latents, which only the encoder that made them can read")
        data.store.require(encoder.latent_spec)  # type: ignore[arg-type]
    return encoder, encoder.spec


def assemble(settings: TrainSettings, encoder: nn.Module | None, spec: Any, task: Task) -> FeatureModel:
    """Head and decoder for a spec, pooled where `pool` says so, with the encoder that gives such banks, or none."""
    import torch

    from satdifuser.model import FeatureModel
    from satdifuser.pooling import pooling_for

    pooling = pooling_for(spec, settings.pool)
    torch.manual_seed(settings.seed)  # the heads' weights depend on the seed, not on what was built before them
    fusion = settings.fusion.build(spec=spec if pooling is None else pooling.spec(spec))
    decoder = settings.decoder.build(pyramid=fusion.pyramid, outputs=task.outputs, dense=task.dense)
    return FeatureModel(encoder, fusion, decoder, task, pooling)
