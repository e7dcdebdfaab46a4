"""The deflection adapter: it turns a frozen block's displacement, and by choice keeps its length."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from satdifuser.bank import BankError

NORMS = ("preserve", "bound", "none")
SMALLEST = 1e-12


class Deflection(nn.Module):
    """`delta = turned(delta_p, g)` with `g = U act(D x)`: D to `rank`, U zero at the start, so that nothing changes.

    `preserve` keeps the displacement's length (v = delta_p + g, scaled to |delta_p|), `bound` keeps
    |g| <= epsilon |delta_p|, `none` adds g as it is. Lengths are those of each token.
    """

    def __init__(self, width: int, rank: int, norm: str = "preserve", epsilon: float = 0.1) -> None:
        super().__init__()
        check_settings(rank, norm, epsilon)
        self.norm, self.epsilon = norm, epsilon
        self.down = nn.Linear(width, rank, bias=False)  # D
        self.up = nn.Linear(rank, width, bias=False)  # U
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        nn.init.zeros_(self.up.weight)

    def forward(self, displacement: Tensor, auxiliary: Tensor) -> Tensor:
        hidden = F.gelu(self.down(auxiliary))
        # Of `rank` numbers a token all else is cheap to compute again, and a token's width is not kept for it.
        return checkpoint(self._turned, displacement, hidden, use_reentrant=False, preserve_rng_state=False)

    def _turned(self, displacement: Tensor, hidden: Tensor) -> Tensor:
        g = self.up(hidden).to(displacement.dtype)
        if self.norm == "none":
            return displacement + g
        length = _length(displacement)
        if self.norm == "bound":
            return displacement + g * (self.epsilon * length / _length(g).clamp_min(SMALLEST)).clamp_max(1.0).to(
                g.dtype
            )
        turned = displacement + g
        return turned * (length / _length(turned).clamp_min(SMALLEST)).to(turned.dtype)  # exactly 1 where g is 0


def check_settings(rank: int, norm: str, epsilon: float) -> None:
    if norm not in NORMS:
        raise BankError(f"norm is {norm!r}: it can be {', '.join(NORMS)}")
    if not isinstance(rank, int) or rank < 1 or not isinstance(epsilon, (int, float)) or not 0 < epsilon < math.inf:
        raise BankError(f"rank is {rank!r} and epsilon {epsilon!r}: both must be above 0")


def _length(x: Tensor) -> Tensor:
    """Of each token, in at least 32 bits; at zero its slope is zero too, not undefined."""
    square = x.to(torch.promote_types(x.dtype, torch.float32)).square().sum(-1, keepdim=True)
    return square.clamp_min(SMALLEST**2).sqrt()
