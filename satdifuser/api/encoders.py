"""Encoders by name: the same objects that `satdifuser extract encoder=NAME` builds."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from satdifuser.build import build_encoder
from satdifuser.config import composed, groups, quoted, settings_of, trusted_by
from satdifuser.errors import UserError, nearest
from satdifuser.settings.trust import named_in, trusting

if TYPE_CHECKING:
    from satdifuser.bank import BankSpec, FeatureBank

TARGET = "_target_"


class Encoder(nn.Module):
    """What every encoder has, for type checkers: encoders are plain modules and need not inherit from this class."""

    spec: BankSpec

    if TYPE_CHECKING:

        def __call__(
            self, images: Tensor, *, sample_ids: Sequence[str] | None = None, metadata: Tensor | None = None
        ) -> FeatureBank: ...


def list_encoders() -> list[str]:
    """The names that `load_encoder` takes.

    >>> "small" in list_encoders()
    True
    """
    return groups()["encoder"]


def load_encoder(
    name: str = "small",
    settings: Mapping[str, Any] | None = None,
    *,
    sensor: str = "SENTINEL2",
    size: int = 64,
    adapter: str | None = None,
    seed: int = 0,
    config_dirs: Sequence[str] = (),
    **more: Any,
) -> Encoder:
    """The encoder of `configs/encoder/NAME.yaml`, in evaluation mode.

    Its settings are those of the command line without `encoder.`: as keywords (`timesteps=[21]`, `backbone={"weights":
    folder}`) or as a mapping with dotted names (`{"backbone.weights": folder}`). `sensor` and `size` (in px) say which
    images it will be given: the command line takes them from the data set. `config_dirs` are folders of your own, as
    `--config-dir`; packages that they name are trusted.

    >>> load_encoder("colours", size=32).spec.image_size
    (32, 32)
    """
    known = groups(config_dirs)
    if name not in known["encoder"]:
        raise UserError(f"no encoder {name!r}: there is {', '.join(known['encoder'])}{nearest(name, known['encoder'])}")
    words = [f"encoder={name}", f"data.sensor={quoted(sensor)}", f"data.size={size}", f"seed={seed}"]
    if adapter is not None:
        if adapter not in known["adapter"]:
            there = known["adapter"]
            raise UserError(f"no adapter {adapter!r}: there is {', '.join(there)}{nearest(adapter, there)}")
        words.append(f"adapter={adapter}")
    from omegaconf import OmegaConf

    given = {**(settings or {}), **more}
    config = composed("extract", words, config_dirs)
    own: Any = OmegaConf.to_container(config["encoder"], resolve=True)
    config["encoder"] = changed(own, given)
    with trusting(trusted_by(config_dirs, []) | named_in([given], [])):
        part = settings_of("extract", config).encoder
        return cast(Encoder, build_encoder(part).eval())


def changed(config: Mapping[str, Any], settings: Mapping[str, Any], above: str = "encoder") -> dict[str, Any]:
    """A configuration with settings of it changed; those inside a part may be given by dotted names or as a mapping.

    >>> changed({"prepare": {"low": 0, "high": 1}}, {"prepare.high": 2, "seed": 1})
    {'prepare': {'low': 0, 'high': 2}, 'seed': 1}
    """
    found = copy.deepcopy(dict(config))
    for name, value in settings.items():
        first, _, rest = str(name).partition(".")
        inside = found.get(first)
        if rest:
            if not isinstance(inside, Mapping):
                there = f": {above} has {', '.join(k for k in found if k != TARGET)}" if first not in found else ""
                raise UserError(f"there is no setting {above}.{name}{there}{nearest(first, found)}")
            found[first] = changed(inside, {rest: value}, f"{above}.{first}")
        elif isinstance(inside, Mapping) and isinstance(value, Mapping) and TARGET not in value:
            found[first] = changed(inside, value, f"{above}.{first}")
        else:
            found[first] = value
    return found
