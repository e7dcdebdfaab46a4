"""The deflection adapter: it turns a frozen block's displacement, and by choice keeps its length."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from satdifuser.kinds import Count, Positive, checked

Norm = Literal["preserve", "bound", "none"]
NORMS = get_args(Norm)
SMALLEST = 1e-12


class Deflection(nn.Module):
    """`delta = turned(delta_p, g)` with `g = U act(D x)`: D to `rank`, U zero at the start, so that nothing changes.

    `preserve` keeps the displacement's length (v = delta_p + g, scaled to |delta_p|), `bound` keeps
    |g| <= epsilon |delta_p|, `none` adds g as it is. Lengths are those of each token.
    """

    @checked("encoder.adapter")
    def __init__(self, width: int, rank: Count, norm: Norm = "preserve", epsilon: Positive = 0.1) -> None:
        super().__init__()
        self.norm, self.epsilon = norm, epsilon
        self.down = nn.Linear(width, rank, bias=False)  # D
        self.up = nn.Linear(rank, width, bias=False)  # U
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        nn.init.zeros_(self.up.weight)

    def forward(self, displacement: Tensor, auxiliary: Tensor) -> Tensor:
        hidden = F.gelu(self.down(auxiliary))
        if self.norm == "preserve":
            turned: Tensor = Turn.apply(displacement, hidden, self.up.weight)
            return turned
        if self.norm == "bound":  # of `rank` numbers a token all else is cheap to compute again
            return checkpoint(self._bounded, displacement, hidden, use_reentrant=False, preserve_rng_state=False)
        return displacement + self.up(hidden)

    def _bounded(self, displacement: Tensor, hidden: Tensor) -> Tensor:
        g = self.up(hidden)
        allowed = self.epsilon * _length(displacement) / _length(g).clamp_min(SMALLEST)
        return displacement + g * allowed.clamp_max(1.0).to(g.dtype)


class Turn(torch.autograd.Function):
    """`|delta_p| v / |v|` with `v = delta_p + U h`, and its slopes in a few passes, from delta_p and h alone.

    With n = v / |v| and G the slope at the result: dv = |delta_p| / |v| (G - n (n G)), and delta_p gets beside that
    (n G) delta_p / |delta_p|.
    """

    @staticmethod
    def forward(ctx: Any, displacement: Tensor, hidden: Tensor, up: Tensor) -> Tensor:
        turned = _sum(displacement, hidden, up)
        length, whole = _length(displacement), _length(turned).clamp_min(SMALLEST)
        ctx.save_for_backward(displacement, hidden, up, length, whole)
        return turned.mul_((length / whole).to(turned.dtype))  # by exactly 1 where g is 0

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        displacement, hidden, up, length, whole = ctx.saved_tensors
        turned = _sum(displacement, hidden, up)
        along = torch.linalg.vecdot(grad, turned)[..., None].to(whole.dtype) / whole
        ratio = length / whole
        slope = turned.mul_((-along * ratio / whole).to(turned.dtype)).addcmul_(grad, ratio.to(turned.dtype))
        direct = torch.addcmul(slope, displacement, (along / length.clamp_min(SMALLEST)).to(slope.dtype))
        like = slope.to(hidden.dtype)
        return direct, like @ up.to(hidden.dtype), (like.flatten(0, -2).T @ hidden.flatten(0, -2)).to(up.dtype)


def _sum(displacement: Tensor, hidden: Tensor, up: Tensor) -> Tensor:
    """`delta_p + U h`, a tensor of its own."""
    return (hidden @ up.T.to(hidden.dtype)).to(displacement.dtype).add_(displacement)


def _length(x: Tensor) -> Tensor:
    """Of each token, in at least 32 bits."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
