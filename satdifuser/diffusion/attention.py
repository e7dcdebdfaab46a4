"""Which attention the networks use: PyTorch's own, or xformers' where its kernels run."""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch

from satdifuser.kinds import checked

log = logging.getLogger(__name__)
Attention = Literal["sdpa", "xformers"]


@checked("encoder")
def use_attention(model: Any, attention: Attention, device: torch.device) -> str:
    """Set a diffusers model's attention; gives the one that is used, which is SDPA where xformers does not run."""
    if attention == "xformers":
        problem = xformers_problem(device)
        if problem is None:
            model.enable_xformers_memory_efficient_attention()
            return "xformers"
        log.warning("encoder.attention=xformers: %s; going on with PyTorch's scaled-dot-product attention", problem)
    return "sdpa"


def xformers_problem(device: torch.device) -> str | None:
    """Why xformers' kernels do not run on a device, found by running one; None if they do."""
    try:
        import xformers.ops as ops

        dtype = torch.float16 if device.type == "cuda" else torch.float32
        x = torch.zeros(1, 16, 2, 32, device=device, dtype=dtype)
        ops.memory_efficient_attention(x, x, x)
    except (ImportError, NotImplementedError, RuntimeError, OSError, AttributeError) as error:
        lines = str(error).strip().splitlines()
        return f"its kernels do not run here ({lines[0] if lines else type(error).__name__})"
    return None
