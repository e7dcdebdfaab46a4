"""From configuration to objects: data, encoder, fusion, decoder, task. Each `_target_` is an ordinary class."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from satdifuser.bank import BankError
from satdifuser.data.base import LabelledDataset
from satdifuser.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import nn

    from satdifuser.model import FeatureModel
    from satdifuser.tasks.base import Task


def make(node: Any, **kwargs: Any) -> Any:
    """Hydra's `instantiate`, with errors that a user can make passed on in their own words.

    What is not configuration (specs, labels) goes to the class as it is, not through the configuration.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(node, _partial_=True, _convert_="all")(**kwargs)
    except BankError as error:  # bank.py and deflect stand alone and have an error of their own
        raise UserError(str(error)) from error
    except (TypeError, ValueError) as error:
        target = str(node["_target_"]).rpartition(".")[2]
        raise UserError(f"{target} does not take these settings: {' '.join(str(error).split())}") from error
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, (UserError, BankError)):
                raise UserError(str(cause)) from error
            cause = cause.__cause__
        raise UserError(" ".join(str(error).split())) from error


def build_data(config: Any, split: str, name: str = "data") -> LabelledDataset:
    """One split of a configured data set: its own arguments are those of `data` and of `data.splits.<split>`.

    `name` is what the configuration calls it, for errors.
    """
    from hydra.utils import get_class
    from omegaconf import OmegaConf

    missing = [key.removeprefix(f"{name}.") for key in sorted(OmegaConf.missing_keys(config))]
    if missing:
        raise UserError(f"{name}.{missing[0]} is not set: give it, as {name}.{missing[0]}=...")
    if split not in config.splits:
        raise UserError(
            f"data has no split {split!r}: it has {', '.join(config.splits)}{nearest(split, config.splits)}"
        )
    common = {key: value for key, value in config.items() if key != "splits"}
    if "sensor" not in inspect.signature(get_class(config._target_)).parameters:
        common.pop("sensor", None)  # it is the encoder's to know
    data: LabelledDataset = make({**common, **config.splits[split]})
    return data


def build_encoder(config: Any) -> nn.Module:
    from hydra.utils import get_class

    if "adapter" in config and "adapter" not in inspect.signature(get_class(config._target_)).parameters:
        name = config._target_.rpartition(".")[2]
        raise UserError(
            f"adapter= is for vision transformers (encoder=small_vit, scalemae, vit, ...) and diffusion UNets: {name}"
            " takes none"
        )
    encoder: nn.Module = make(config)
    return encoder


def open_split(config: Any, split: str, beside: LabelledDataset | None = None) -> LabelledDataset:
    """A split of the store where `features` names one, else of the images.

    `beside` is a split that is open: the other one is of the very same store, whatever lies at its path by now.
    """
    if config.features is None:
        return build_data(config.data, split)
    from satdifuser.store import FeatureStore, StoredFeatures

    check = config.get("check_features", True)  # runs of earlier versions have no such setting
    store = beside.store if isinstance(beside, StoredFeatures) else FeatureStore(config.features, check=check)
    spec = store.spec
    if not store.latents:  # of latents, the encoder's own settings say which features are made
        spec = spec.select(timesteps=config.select.timesteps, names=config.select.taps)
    found = store.split(split, spec)
    if not len(found):
        raise UserError(f"{store.path} has no samples in its split {split}: extract some (all may have been skipped)")
    return found


def _source(config: Any, data: LabelledDataset) -> tuple[nn.Module | None, Any]:
    """The encoder, unless the data are features, and the spec of what the fusion head gets."""
    from satdifuser.store import StoredFeatures

    if isinstance(data, StoredFeatures) and not data.store.latents:
        if config.encoder.get("adapter") is not None and not config.encoder.adapter._target_.endswith(".Frozen"):
            name = config.encoder.adapter._target_.rpartition(".")[2]
            raise UserError(f"an adapter ({name}) trains on images, not on stored features: leave features out")
        return None, data.spec
    encoder = build_encoder(config.encoder)
    if isinstance(data, StoredFeatures):
        if not hasattr(encoder, "latent_spec"):
            raise UserError(f"{data.store.path} holds latents, which only the encoder that made them can read")
        data.store.require(encoder.latent_spec)  # type: ignore[arg-type]
    return encoder, encoder.spec


def build_task(config: Any, data: LabelledDataset) -> Task:
    task: Task = make(config, labels=data.labels)
    return task


def build_model(config: Any, data: LabelledDataset) -> FeatureModel:
    """The whole path for a data set of images, or of features."""
    encoder, spec = _source(config, data)
    return assemble(config, encoder, spec, build_task(config.task, data))


def assemble(config: Any, encoder: nn.Module | None, spec: Any, task: Task) -> FeatureModel:
    """Head and decoder for a spec, pooled where `pool` says so, with the encoder that gives such banks, or none."""
    import torch

    from satdifuser.model import FeatureModel
    from satdifuser.pooling import pooling_for

    pooling = pooling_for(spec, config.get("pool"))  # runs of earlier versions have no such setting
    torch.manual_seed(config.seed)  # the heads' weights depend on the seed, not on what was built before them
    fusion = make(config.fusion, spec=spec if pooling is None else pooling.spec(spec))
    decoder = make(config.decoder, pyramid=fusion.pyramid, outputs=task.outputs, dense=task.dense)
    return FeatureModel(encoder, fusion, decoder, task, pooling)
