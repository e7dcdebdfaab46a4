"""A UNet of some bands as one of others: it sees at first what it saw, and nothing of the bands that are new to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from satdifuser.errors import UserError


def onto_bands(unet: Any, known: Sequence[str], wanted: Sequence[str], folder: str) -> Any:
    """The same network for the bands `wanted`, of weights that were trained on `known`.

    A band that it knows keeps its filters, in and out. Those of a new band are 0: the prediction for a known band is
    what it was, until training moves it.
    """
    shared = [band for band in wanted if band in known]
    if not shared:
        raise UserError(
            f"init: the UNet in {folder} was trained on {', '.join(known)}, and none of these is among"
            f" {', '.join(wanted)}: give another init, or set prepare.bands"
        )
    area = unet.config.get("patch_size", 1) ** 2
    found = type(unet).from_config({**unet.config, "in_channels": len(wanted), "out_channels": len(wanted)})
    state = unet.state_dict()
    for name in ("conv_in.weight", "conv_out.weight", "conv_out.bias"):
        axis = 1 if name == "conv_in.weight" else 0
        old = state[name]
        shape = list(old.shape)
        shape[axis] = len(wanted) * area
        new = old.new_zeros(shape)
        for place, band in enumerate(wanted):
            if band in known:
                whence = known.index(band) * area
                new.narrow(axis, place * area, area).copy_(old.narrow(axis, whence, area))
        state[name] = new
    found.load_state_dict(state)
    return nn.Module.to(
        found, next(iter(state.values())).dtype
    )  # diffusers' own would warn of modules that it has none of
