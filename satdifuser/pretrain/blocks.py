"""What diffusers asks of a UNet's settings, said before it fails on them, and a look whether a network runs at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from satdifuser.errors import UserError, nearest

# The blocks and the ways to resize of an unconditional UNet; diffusers takes a way that it does not know for another.
DOWN = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D", "AttnSkipDownBlock2D")
UP = ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D")
RESIZING = ("conv", "resnet")


def check_blocks(blocks: Mapping[str, Any], size: int) -> None:
    """Name the setting that does not fit the others, or images of this size."""
    widths = blocks["block_out_channels"]
    if not isinstance(widths, Sequence) or not widths or not all(_counts(width) for width in widths):
        raise UserError(f"unet.block_out_channels is {widths}: give a list of widths, whole numbers above 0")
    patch = blocks.get("patch_size", 1)
    if not _counts(patch):
        raise UserError(f"unet.patch_size is {patch}: give a whole number above 0, the side of a patch in px")
    check_size(widths, size, patch)
    attending = [widths[-1]] if blocks.get("add_attention", True) else []  # in the middle
    for setting, known, ordered in (("down_block_types", DOWN, widths), ("up_block_types", UP, widths[::-1])):
        names = blocks[setting]
        if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != len(widths):
            raise UserError(f"unet.{setting} is {names}: give a list of {len(widths)} names, one for each width")
        for name in names:
            _check_word(f"unet.{setting} has", name, known)
        attending += [width for name, width in zip(names, ordered, strict=True) if "Attn" in name]
    for setting in ("downsample_type", "upsample_type"):
        _check_word(f"unet.{setting} is", blocks.get(setting, "conv"), RESIZING)
    if not _counts(blocks.get("layers_per_block", 2)):
        raise UserError(f"unet.layers_per_block is {blocks['layers_per_block']}: give a whole number above 0")
    _check_groups(blocks.get("norm_num_groups", 32), widths)
    side = blocks.get("attention_head_dim", 8)
    if side is not None and not _counts(side):
        raise UserError(f"unet.attention_head_dim is {side}: give null, or a whole number above 0")
    if side is not None and attending and side > min(attending):
        raise UserError(
            f"unet.attention_head_dim is {side}, and a block with attention is {min(attending)} wide: give that or less"
        )


def _check_word(what: str, word: Any, known: Sequence[str]) -> None:
    if word not in known:
        raise UserError(f"{what} {word}: it can be {', '.join(known)}{nearest(str(word), known)}")


def _check_groups(groups: Any, widths: Sequence[int]) -> None:
    odd = [width for width in widths if not _counts(groups) or width % groups]
    if odd:
        raise UserError(
            f"unet.norm_num_groups is {groups}: give a whole number by which each of unet.block_out_channels can be"
            f" divided, and {odd[0]} is among them"
        )


def check_size(widths: Sequence[int], size: int, patch: int = 1) -> None:
    factor = patch * 2 ** (len(widths) - 1)
    if size % factor:
        patches = f"reads patches of {patch} px and " if patch > 1 else ""
        raise UserError(
            f"the UNet {patches}halves its input {len(widths) - 1} times: {size} px is no multiple of {factor}; set"
            " data.size, or fewer unet.block_out_channels"
        )


def runs(what: str, network: Any, channels: int, size: int) -> None:
    """Refuse a network that cannot read an image, or that gives NaN, before anything depends on it."""
    images = torch.zeros(2, channels, size, size)
    try:
        with torch.no_grad():
            given = (images, torch.tensor([0, 1])) if hasattr(network, "down_blocks") else (images,)
            found = network.eval()(*given).sample
    except Exception as error:  # of whatever kind: it comes from the depths of a library
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{what} does not run on {channels} bands of {size} px: {reason}") from error
    if found.shape != images.shape:
        raise UserError(f"{what} makes {tuple(found.shape[1:])} of {channels} bands of {size} px: it must keep them")
    if not bool(found.isfinite().all()):
        raise UserError(f"{what} makes NaN or infinite values of a blank image of {channels} bands: give others")


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
