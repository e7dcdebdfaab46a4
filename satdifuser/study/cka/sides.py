"""What is compared: a run, what a run began with, a store, or an encoder that overrides make."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from satdifuser.bank import BankSpec
from satdifuser.build import build_encoder
from satdifuser.data.policy import resolved
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.model import fixed_of
from satdifuser.store import FeatureStore, StoredFeatures
from satdifuser.study.places import place_of

if TYPE_CHECKING:
    from torch import nn

    from satdifuser.settings.commands import TrainSettings
    from satdifuser.settings.part import DataPart

Asked = str | list[str]  # a folder, or overrides
Modules = str | Sequence[str]


@dataclass
class Side:
    """One of the two: an encoder that runs on images, or the features of a store. `weights` names what was trained."""

    name: str
    spec: BankSpec
    encoder: nn.Module | None = None
    stored: StoredFeatures | None = None
    weights: str = ""
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def ids(self) -> list[str] | None:
        """Of a store's samples; None of an encoder, which takes any."""
        return None if self.stored is None else self.stored.ids


def asked_of(text: Asked) -> Asked:
    """What a side is: on a command line a list of overrides comes as one text, since `=` is none of Hydra's in a list.

    >>> asked_of("[encoder=small,encoder.timesteps=[21,61]]"), asked_of("runs/latest")
    (['encoder=small', 'encoder.timesteps=[21,61]'], 'runs/latest')
    """
    if not isinstance(text, str) or not (text.startswith("[") and text.endswith("]")):
        return text
    found, depth, quote = [""], 0, ""
    for letter in text[1:-1]:
        if quote or letter in "\"'":
            quote = "" if letter == quote else quote or letter
        depth += (letter in "[{(") - (letter in "]})") if not quote else 0
        if letter == "," and not depth and not quote:
            found.append("")
        else:
            found[-1] += letter
    return [word.strip() for word in found if word.strip()]


def is_store(asked: Asked) -> bool:
    """A folder with a zarr.json, or an address."""
    return isinstance(asked, str) and ("://" in asked or (Path(asked).expanduser() / "zarr.json").is_file())


def is_run(asked: Asked) -> bool:
    return isinstance(asked, str) and not is_store(asked)


def run_of(asked: str) -> TrainSettings:
    """The settings of a run, or one line that says what could be given."""
    folder = RunFolder(asked)
    if not folder.config.is_file():
        hint = f": overrides are a list, as [{asked}]" if "=" in asked else ""
        raise UserError(
            f"{asked} is neither the folder of a run nor a store{hint or ': give one, or overrides as [encoder=small]'}"
        )
    return folder.settings()


def of_run(asked: str, data: DataPart, modules: Modules) -> Side:
    """The encoder of a run with what it has trained; where it is frozen, with its pretrained weights."""
    folder, settings = RunFolder(asked), run_of(asked)
    encoder = build_encoder(resolved(settings.encoder, data))
    if not folder.best.is_file():
        raise UserError(f"{folder.path} has no {folder.best.name}: train it first")
    _same_weights(folder, encoder)
    weights = _load(encoder, folder.best)
    return _live(folder.path.name, encoder, modules, settings, weights, {"run": str(folder.path)})


def origin_of(asked: str, data: DataPart, modules: Modules) -> Side:
    """What a run began with: the very same settings before training, or what another run had trained (`init`)."""
    folder, settings = RunFolder(asked), run_of(asked)
    encoder = build_encoder(resolved(settings.encoder, data))
    weights, before = "", None if settings.init is None else RunFolder(settings.init)
    if before is not None:
        if not before.best.is_file():
            raise UserError(f"{folder.path} began with {before.path}, which is gone: say with second= what to take")
        weights = _load(encoder, before.best, all_of_it=False)
    about = {"before": str(folder.path)}
    return _live(f"{folder.path.name} before training", encoder, modules, settings, weights, about)


def of_store(asked: str, split: str, modules: Modules) -> Side:
    """All that a store has, or the kinds of modules asked for."""
    store = FeatureStore(asked)
    if store.latents:
        raise UserError(
            f"{store.path} holds latents: give the overrides of the encoder that reads them, as [encoder=...]"
        )
    spec = store.spec
    if not isinstance(modules, str):
        spec = replace(spec, taps=_of_kinds(spec, modules, store.path))
    found = store.split(split, spec, in_memory=False)
    return Side(Path(str(store.path)).name.removesuffix(".zarr"), spec, stored=found, about={"store": str(store.path)})


def of_overrides(asked: list[str], data: DataPart, modules: Modules, seed: int) -> Side:
    """An encoder as the overrides of `satdifuser probe` would make it, on the data that both sides read."""
    from omegaconf import OmegaConf

    from satdifuser.config import composed, settings_of

    other = next((word for word in asked if not _of_encoder(word)), None)
    if other is not None:
        raise UserError(f"{other} is not about an encoder: a side is given as [encoder=..., adapter=..., seed=...]")
    config = composed("probe", asked, resolve=False)
    OmegaConf.set_struct(config, False)
    config.data = data.plain()
    if not any(word.startswith("seed=") for word in asked):
        config.seed = seed
    made = settings_of("probe", config)
    encoder = build_encoder(resolved(made.encoder, data))
    return _live(str(getattr(encoder, "spec").encoder), encoder, modules, None, "", {"overrides": list(asked)})  # noqa: B009


def _live(
    name: str, encoder: Any, modules: Modules, settings: TrainSettings | None, weights: str, about: dict[str, Any]
) -> Side:
    spec: BankSpec = encoder.spec
    if modules == "taps":
        spec = spec if settings is None else settings.select.of(spec)
    elif not hasattr(encoder, "read_at"):
        raise UserError(f"{spec.encoder} gives its taps alone, nothing inside of its blocks: set cka.modules=taps")
    else:
        there = list(encoder.kinds)
        wanted = modules if isinstance(modules, str) else [kind for kind in modules if kind in there]
        if not wanted:
            raise UserError(f"cka.modules: {spec.encoder} has no {' or '.join(modules)}: it has {', '.join(there)}")
        encoder.read_at(wanted)
        spec = encoder.spec
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = encoder.to(device).eval().requires_grad_(False)
    return Side(name, spec, encoder=encoder, weights=weights, about={**about, "encoder": spec.encoder})


def _load(encoder: nn.Module, best: Path, all_of_it: bool = True) -> str:
    """Put in what a run has trained of its encoder, every weight of it; gives a digest of that, "" of nothing."""
    found = load_checkpoint(best)[1]
    state = {name.removeprefix("encoder."): value for name, value in found.items() if name.startswith("encoder.")}
    outside, own = set(fixed_of(encoder)), encoder.state_dict()
    trains = {name for name in own if name not in outside}
    wrong = sorted(trains ^ state.keys()) if all_of_it or state else []
    wrong += [name for name in sorted(trains & state.keys()) if own[name].shape != state[name].shape]
    if wrong:
        raise UserError(
            f"{best} is of another encoder than its settings make: {len(wrong)} weights do not match, {wrong[0]} first"
        )
    encoder.load_state_dict(state, strict=False)
    whole = hashlib.sha256()
    for name, value in sorted(state.items()):
        whole.update(name.encode())
        whole.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else b"")
    return whole.hexdigest()[:16] if state else ""


def _same_weights(folder: RunFolder, encoder: Any) -> None:
    trained, now = folder.spec(), encoder.spec
    if (trained.encoder, trained.weights) != (now.encoder, now.weights):
        raise UserError(
            f"{folder.path} was trained on {trained.encoder} ({trained.weights}), and its settings make {now.encoder}"
            f" ({now.weights}) now: put the file of weights back"
        )


def _of_kinds(spec: BankSpec, kinds: Sequence[str], path: Any) -> tuple[Any, ...]:
    taps = tuple(tap for tap in spec.taps if place_of(tap).kind in kinds)
    if not taps:
        there = ", ".join(dict.fromkeys(place_of(tap).kind for tap in spec.taps))
        raise UserError(f"cka.modules: {path} has no {' or '.join(kinds)}: it has {there}")
    return taps


def _of_encoder(word: str) -> bool:
    key = word.lstrip("+~").partition("=")[0]
    return key.partition(".")[0].partition("@")[0] in ("encoder", "adapter", "seed")
