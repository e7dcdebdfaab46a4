"""Weights of a ViT from a file, strictly: safetensors, or a checkpoint of which only the tensors are read."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from satdifuser.bank import BankError
from satdifuser.tensors import TensorsError, read_tensors

# What pretraining leaves beside an encoder, and what features do not pass through.
IGNORED = re.compile(
    r"(^|\.)(head|head_dist|head_drop|attn_pool|fc|fc_norm|mask_token|decoder\w*|predictor|projector|projection\w*"
    r"|s1_encoder|s1_GAP_FFN|s2_GAP_FFN|joint_encoder|attn_bias|patch_embed_variable)(\.|$)"
)

PLACES = "encoder_pos_embed"
LAST_NORM = re.compile(r"(norm|s2_encoder\.transformer\.norm_out)\.(weight|bias)$")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, by its dotted path in whatever nest of dictionaries it lies in."""
    try:
        return read_tensors(path)
    except TensorsError as error:
        hint = "" if path.is_file() else "; weights=none needs no file"
        raise BankError(f"{error}{hint}") from error


def load_weights(model: nn.Module, path: Path) -> bool:
    """A file's weights into the model: its usual prefixes stripped, position embeddings at the model's size.

    Gives whether the last LayerNorm, which is only used where it is asked for, was among them.
    """
    return load_state(model, encoder_part(read_weights(path), model.state_dict(), path), path)


def load_state(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> bool:
    """Weights under the model's own names into the model; every one that does not match is an error that names it."""
    own = model.state_dict()
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


def encoder_part(state: dict[str, Tensor], own: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The part of a checkpoint that is this model: what lies under the prefix that most of its names have there.

    Of a student and a teacher it is the teacher's.
    """
    state = _cross_scale(state, path)
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


def _cross_scale(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A checkpoint of Cross-Scale MAE's pretraining (encoder.0, encoder_norm, encoder_pos_embed) with timm's names."""
    root = next((name.removesuffix(PLACES) for name in state if name.endswith(PLACES)), None)
    if root is None:
        return state
    if any(name.startswith(f"{root}encoder.encoders.") for name in state):
        raise BankError(
            f"{path} has blocks of xformers, whose norms come after their sums: no ViT of timm computes them, give the"
            " weights of a pretraining without --use_xformers"
        )
    ours = ((PLACES, "pos_embed"), (r"encoder_norm\.", "norm."), (r"encoder\.(?=\d)", "blocks."))
    found = {}
    for name, value in state.items():
        rest = name.removeprefix(root)
        for theirs, own in ours:
            rest = re.sub(f"^{theirs}", own, rest)
        found[root + rest if name.startswith(root) else name] = value
    return found


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
