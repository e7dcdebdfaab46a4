"""The result of pretraining as others read it: a folder in diffusers' layout, with how it came about."""

from __future__ import annotations

import copy
import json
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from satdifuser.data.trained import range_overrides
from satdifuser.diffusion.encoder import PRECISIONS
from satdifuser.diffusion.files import quiet
from satdifuser.engine.run import environment
from satdifuser.errors import UserError
from satdifuser.pretrain.soundness import unsound


def export(
    folder: Path,
    parts: Mapping[str, Any],
    precision: str,
    provenance: Mapping[str, Any],
    finish: Callable[[Path], object] = lambda folder: None,
) -> Path:
    """Write models and scheduler by their names in the layout (unet, vae, scheduler), and what `finish` adds.

    The folder appears whole, or not at all where weights are no numbers in that precision. A model of one or three
    bands is a pipeline of diffusers; it has none for more bands, for latents without a prompt, or for patches.
    """
    ready = {name: _in_precision(name, part, precision) for name, part in parts.items()}
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write(partial, ready, provenance)
        finish(partial)
        return put_in_place(partial, folder)
    except BaseException:  # half a model is of no use to anybody, least of all on a disk that is full
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _in_precision(name: str, part: Any, precision: str) -> Any:
    """A network as it is shipped; a scheduler is what it is."""
    if not isinstance(part, torch.nn.Module):
        return part
    with quiet():
        part = copy.deepcopy(part).cpu().to(PRECISIONS[precision])
    wrong = unsound(part.state_dict())
    if wrong is not None:
        raise UserError(
            f"the weights of {name} are NaN or infinite in {precision} ({wrong}), so no model is written: another"
            " export= may have room for them, or lower recipe.lr"
        )
    return part


def _write(folder: Path, parts: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    import diffusers

    index: dict[str, Any] = {"_class_name": "DDPMPipeline", "_diffusers_version": diffusers.__version__}
    for name, part in parts.items():
        index[name] = ["diffusers", type(part).__name__]
        part.save_pretrained(folder / name)
    plain = type(parts.get("unet")) is diffusers.UNet2DModel  # a class of ours is unknown to diffusers
    if plain and parts.keys() == {"unet", "scheduler"} and parts["unet"].config["in_channels"] in (1, 3):
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")


def loaded_by(encoder: str, folder: Path | str, prepare: Mapping[str, Any]) -> str:
    """The overrides with which an encoder loads what was trained on inputs of `prepare`."""
    return " ".join([f"encoder={encoder} encoder.backbone.weights={folder}", *range_overrides(prepare)])


def exported_step(folder: Path) -> int | None:
    """The step at which a model was exported; None where there is no whole one."""
    try:
        return int(json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def put_in_place(new: Path, folder: Path) -> Path:
    """Rename a folder that is whole to where an older one may be; whenever it ends, one of the two is there."""
    old = folder.with_name(folder.name + ".old")
    if folder.exists():  # else an older one may be all there is
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return folder


def machine(processes: int) -> dict[str, Any]:
    """What it was made with, without the machine's name."""
    found = environment(processes)
    threads = f"{found['threads']} CPU thread{'' if found['threads'] == 1 else 's'}"
    device = threads if found["device"] == "cpu" else found["device"]
    return {
        "versions": {name: found["packages"][name] for name in ("torch", "diffusers", "numpy")},
        "machine": f"{processes} x {device}" if processes > 1 else f"{device}, {platform.machine()}",
    }
