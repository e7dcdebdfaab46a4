"""Beginning with what another run has trained: first a head on frozen features, then the encoder with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.model import FeatureModel

ADAPTING = ("adapter", "adapter_seed")  # what a spec says of what trains; an adapted encoder begins as it was before


def begin_with(model: FeatureModel, config: Any) -> None:
    """Load what the finished run `config.init` has trained: its head, its decoder, and its adapter if it has one.

    The head must have read the features that this one will, and have seen no labels that this run may not see.
    """
    folder = RunFolder(config.init)
    before = folder.load_config()
    if not folder.result.is_file():
        raise UserError(f"init={folder.path} is not finished: it has no {folder.result.name}")
    if before.data == config.data and before.budget > config.budget:
        raise UserError(
            f"init={folder.path} has seen {before.budget:g} % of the labels, and this run may see {config.budget:g} %:"
            " begin with a run of the same budget or a smaller one"
        )
    spec, mine = folder.spec(), model.fusion.spec
    if spec is not None:
        kept = (replace(s, settings=tuple(kv for kv in s.settings if kv[0] not in ADAPTING)) for s in (spec, mine))
        different = next(kept).differences(next(kept))
        if different:
            raise UserError(
                f"init={folder.path} was trained on other features than these (its own and these):"
                f" {'; '.join(different[:4])}"
            )
    state, own = load_checkpoint(folder.best)[1], model.trained_state()
    wrong = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
    wrong += [name for name in own if not name.startswith("encoder.") and name not in state]
    if wrong:
        raise UserError(
            f"init={folder.path} has another head, decoder or adapter than this run: {len(wrong)} weights do not match,"
            f" among them {', '.join(sorted(wrong)[:4])}"
        )
    model.load_state_dict(state, strict=False)
