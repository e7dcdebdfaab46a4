"""Checkpoints: one safetensors file holds weights, optimiser and, as JSON in its header, the training state.

One file, written aside and renamed, cannot be half new; a `.json` beside it repeats the state for people to read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from satdifuser.errors import UserError

MODEL, OPTIMIZER = "model/", "optimizer/"


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
    from safetensors.torch import save_file

    tensors = {MODEL + name: value.detach().cpu().contiguous() for name, value in model.items()}
    if optimizer is not None:
        for index, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                tensors[f"{OPTIMIZER}{index}/{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(state))
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"state": text})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    readable = path.with_suffix(".json.partial")
    readable.write_text(json.dumps(asdict(state), indent=2) + "\n")
    readable.replace(path.with_suffix(".json"))


def load_checkpoint(path: Path) -> tuple[TrainState, dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """State, model tensors and the optimiser's tensors by parameter number."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: train first, or give the folder of a run that has one")
    model: dict[str, Tensor] = {}
    optimizer: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            values: dict[str, Any] = json.loads(file.metadata()["state"])
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if name.startswith(MODEL):
                    model[name.removeprefix(MODEL)] = file.get_tensor(name)
                else:
                    index, _, what = name.removeprefix(OPTIMIZER).partition("/")
                    optimizer.setdefault(int(index), {})[what] = file.get_tensor(name)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or not a checkpoint of satdifuser ({error}): remove it and train again"
        ) from None
    return TrainState(**values), model, optimizer


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[int, dict[str, Tensor]]) -> None:
    """Put saved moments back into a fresh optimiser over the same parameters."""
    state = optimizer.state_dict()
    state["state"] = tensors
    optimizer.load_state_dict(state)
