"""Weights of a ViT from a file, strictly: safetensors, or a checkpoint of which only the tensors are read."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.bank import BankError

# What pretraining leaves beside an encoder, and what features do not pass through.
IGNORED = re.compile(
    r"(^|\.)(head|head_dist|head_drop|attn_pool|fc|fc_norm|mask_token|decoder\w*|predictor|projector|projection\w*"
    r"|s1_encoder|s1_GAP_FFN|s2_GAP_FFN|joint_encoder|attn_bias|patch_embed_variable)(\.|$)"
)

LAST_NORM = re.compile(r"(norm|s2_encoder\.transformer\.norm_out)\.(weight|bias)$")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, by its dotted path in whatever nest of dictionaries it lies in."""
    if not path.is_file():
        kinds = ".safetensors, .pth, .pt, .bin"
        raise BankError(
            f"no file {path.absolute()}: weights ({kinds}) are looked for there; weights=none needs no file"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "weights_only" in reason or "Weights only" in reason:
            reason = "it holds more than tensors, and what a pickle says is not run"
        raise BankError(
            f"{path} is damaged or no file of weights ({reason}): fetch it again, or save its tensors as safetensors"
        ) from error
    tensors = dict(_flat(found, ""))
    if not tensors:
        raise BankError(f"{path} holds no tensors")
    return tensors


def load_weights(model: nn.Module, path: Path) -> bool:
    """A file's weights into the model: its usual prefixes stripped, position embeddings at the model's size.

    Gives whether the last LayerNorm, which is only used where it is asked for, was among them.
    """
    own = model.state_dict()
    state = _strip(read_weights(path), own)
    matched = {
        name: _fit(name, value, own[name], path)
        for name, value in state.items()
        if name in own and (value.shape == own[name].shape or not IGNORED.search(name))
    }
    wrong = [f"{name} is unknown" for name in sorted(state.keys() - own.keys()) if not _optional(name)]
    wrong += [f"{name} is missing" for name in sorted(own.keys() - state.keys()) if not _optional(name)]
    wrong += [
        f"{name} is {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in sorted(matched.items())
        if value.shape != own[name].shape
    ]
    if wrong:
        shown = "; ".join(wrong[:6]) + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
        raise BankError(f"{path} does not match the model ({len(wrong)} weights): {shown}")
    model.load_state_dict(matched, strict=False)
    return all(name in matched for name in own if LAST_NORM.match(name))


def fingerprint(model: nn.Module) -> str:
    """A short name for the exact weights: a hash of every tensor's name and bytes."""
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        whole.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()[:16]


def _flat(value: Any, prefix: str) -> Any:
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))


def _strip(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a checkpoint that is this model: what lies under the prefix that most of its names have there.

    Of a student and a teacher it is the teacher's.
    """
    prefixes: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        prefixes.update(".".join(parts[:cut]) for cut in range(len(parts)) if ".".join(parts[cut:]) in own)
    if not prefixes:
        return state
    prefix = max(prefixes, key=lambda p: (prefixes[p], "teacher" in p, -len(p)))
    if not prefix:
        return state
    return {name[len(prefix) + 1 :]: value for name, value in state.items() if name.startswith(f"{prefix}.")}


def _fit(name: str, value: Tensor, own: Tensor, path: Path) -> Tensor:
    """Position embeddings of another image size are interpolated; another number of bands is refused."""
    if name.endswith("pos_embed") and value.shape != own.shape and value.ndim == 3 and value.shape[-1] == own.shape[-1]:
        from timm.layers import resample_abs_pos_embed

        new = round(own.shape[1] ** 0.5)
        prefix = own.shape[1] - new**2
        old = round((value.shape[1] - prefix) ** 0.5)
        if old**2 + prefix == value.shape[1]:
            return resample_abs_pos_embed(value, [new, new], [old, old], num_prefix_tokens=prefix)
    if name.endswith("patch_embed.proj.weight") and value.ndim == 4 and value.shape[1] != own.shape[1]:
        raise BankError(
            f"the weights in {path} take {value.shape[1]} bands, but the model was built for {own.shape[1]}: set"
            f" encoder.backbone.channels={value.shape[1]}"
        )
    if name.endswith("patch_embed.proj.weight") and value.shape[2:] != own.shape[2:]:
        raise BankError(
            f"the weights in {path} are for patches of {value.shape[-1]} px, but the model was built for"
            f" {own.shape[-1]}: set encoder.backbone.patch_size={value.shape[-1]}"
        )
    return value


def _optional(name: str) -> bool:
    return IGNORED.search(name) is not None or LAST_NORM.match(name) is not None
