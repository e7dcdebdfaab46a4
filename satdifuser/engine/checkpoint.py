"""Checkpoints: one safetensors file holds weights, optimiser and, as JSON in its header, the training state.

One file, written aside and renamed, cannot be half new; a `.json` beside it repeats the state for people to read. The
header has a checksum of all that is read back: names, shapes, types, bytes and state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from satdifuser.engine.files import GOES_ON, DamagedError, aside, json_text, write_text
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from satdifuser.model import FeatureModel

MODEL, OPTIMIZER = "model/", "optimizer/"
SUM = "crc32c"


@dataclass
class TrainState:
    """What a run needs besides tensors to go on as if it had never stopped."""

    step: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    seconds: float = field(default=0.0, compare=False)  # spent on training, over all the times it was taken up
    scaler: dict[str, float] | None = None
    task: str = ""
    row: dict[str, Any] | None = None  # of the step's log, where a checkpoint is written before it


def save_checkpoint(
    path: Path, state: TrainState, model: dict[str, Tensor], optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Write atomically; without an optimiser the file can be evaluated but not resumed."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {MODEL + name: value.detach().cpu().contiguous() for name, value in model.items()}
    if optimizer is not None:
        for index, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                tensors[f"{OPTIMIZER}{index}/{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    for name, value in tensors.items():
        if not _finite(value):
            raise UserError(
                f"{_weight(name)} holds NaN or infinite values at step {state.step}, so {path} is not written: lower"
                " the learning rate, or look at the data"
            )
    with aside(path, path.with_suffix(".partial"), GOES_ON) as partial:
        try:
            save_file(tensors, partial, metadata=sealed(asdict(state), tensors))
        except SafetensorError as error:  # as which it passes errors of the disk on
            raise OSError(str(error)) from None
        with partial.open("rb") as file:
            os.fsync(file.fileno())
    write_text(path.with_suffix(".json"), json_text(asdict(state), indent=2) + "\n")


def sealed(state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The header's metadata: the state, with a CRC-32C of all that a reader takes from the file."""
    from satdifuser.store.shards import crc32c

    values = {name: value for name, value in state.items() if name != SUM}
    about = [[name, str(value.dtype), list(value.shape)] for name, value in sorted(tensors.items())]
    found = crc32c(np.frombuffer(json_text([values, about]).encode(), np.uint8))
    for _, value in sorted(tensors.items()):
        found = crc32c(value.contiguous().reshape(-1).view(torch.uint8).numpy(), found)
    return {"state": json_text({**values, SUM: f"{found:08x}"})}


def take_up(path: Path, model: FeatureModel) -> tuple[TrainState, dict[int, dict[str, Tensor]]]:
    """Put the weights of a run's checkpoint into its model; gives the state and the optimiser's tensors."""
    state, weights, optimizer = load_checkpoint(path)
    try:
        model.load_trained_state(weights)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path} is of another configuration: {error}") from None
    return state, optimizer


def load_checkpoint(path: Path) -> tuple[TrainState, dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """State, model tensors and the optimiser's tensors by parameter number."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: train first, or give the folder of a run that has one")
    model: dict[str, Tensor] = {}
    optimizer: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        values: dict[str, Any] = json.loads(metadata["state"])
        if SUM in values and metadata != sealed(values, tensors):  # earlier versions wrote none
            raise ValueError("its checksum is not that of its contents")
        state = TrainState(**{name: value for name, value in values.items() if name != SUM})
        for name, value in tensors.items():
            if name.startswith(MODEL):
                model[name.removeprefix(MODEL)] = value
            else:
                index, _, what = name.removeprefix(OPTIMIZER).partition("/")
                optimizer.setdefault(int(index), {})[what] = value
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DamagedError(
            f"{path} is damaged or not a checkpoint of satdifuser ({reason}): remove it and train again"
        ) from None
    bad = next((name for name, value in tensors.items() if not _finite(value)), None)
    if bad is not None:
        raise DamagedError(f"{path}: {_weight(bad)} holds NaN or infinite values: remove it and train again")
    return state, model, optimizer


def _finite(value: Tensor) -> bool:
    if not value.is_floating_point() or not value.numel():
        return True
    low, high = torch.aminmax(value)  # NaN if there is one
    return bool(low.isfinite() & high.isfinite())


def _weight(name: str) -> str:
    if name.startswith(MODEL):
        return f"the weight {name.removeprefix(MODEL)}"
    index, _, what = name.removeprefix(OPTIMIZER).partition("/")
    return f"the optimiser's {what} of parameter {index}"


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[int, dict[str, Tensor]]) -> None:
    """Put saved moments back into a fresh optimiser over the same parameters."""
    state = optimizer.state_dict()
    state["state"] = tensors
    optimizer.load_state_dict(state)
