"""Beginning with what another run has trained: first a head on frozen features, then the encoder with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from satdifuser.bank import BankSpec
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder, same_features
from satdifuser.errors import UserError
from satdifuser.model import FeatureModel

LOSS = "loss."  # its weights are of each run's own labels


def begin_with(model: FeatureModel, init: str, kept_from: Iterable[str]) -> list[str]:
    """Load what the finished run `init` has trained: its head, its decoder, and its adapter if it has one.

    The head must have read the features that this one will, and have seen none of the samples that are `kept_from` this
    run. Gives those that it has seen.
    """
    folder = RunFolder(init)
    folder.settings()  # says it where there is no run at all
    if not folder.result.is_file():
        raise UserError(f"init={folder.path} is not finished: it has no {folder.result.name}")
    if not folder.best.is_file():
        raise UserError(f"init={folder.path} has lost {folder.best.name}: remove that folder, and train it again")
    state, seen = load_checkpoint(folder.best)[1], folder.seen()
    told = sorted(set(seen).intersection(kept_from))
    if told:
        raise UserError(
            f"init={folder.path} has learned from {len(told)} samples that this run must not know, such as {told[0]}:"
            " begin with a run of the same samples or of fewer"
        )
    passing = ("adapter_seed",) if any(name.startswith("encoder.") for name in state) else ("adapter", "adapter_seed")
    same_features(f"init={folder.path}", _without(folder.spec(), passing), _without(model.fusion.spec, passing))
    own = {name: value for name, value in model.trained_state().items() if not name.startswith(LOSS)}
    state = {name: value for name, value in state.items() if not name.startswith(LOSS)}
    wrong = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
    wrong += [name for name in own if not name.startswith("encoder.") and name not in state]
    if wrong:
        raise UserError(
            f"init={folder.path} has another head, decoder or adapter than this run: {len(wrong)} weights do not match,"
            f" among them {', '.join(sorted(wrong)[:4])}"
        )
    model.load_state_dict(state, strict=False)
    return seen


def _without(spec: BankSpec, settings: Iterable[str]) -> BankSpec:
    """A frozen encoder is one that an adapter begins with."""
    return replace(spec, settings=tuple((name, value) for name, value in spec.settings if name not in settings))
