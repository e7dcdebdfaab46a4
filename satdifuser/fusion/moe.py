"""Mixture-of-experts fusion: per stride, a gate sends each image and timestep to a few of several experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.errors import UserError
from satdifuser.fusion.base import Bottleneck, Fused, FusionHead, Init, Norm, Width, key
from satdifuser.kinds import Count, NotNegative, Whole, checked


class Gate(nn.Module):
    """3x3 convolution to one score for each expert, global average pool, a learned temperature."""

    def __init__(self, channels: int, experts: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, experts, 3, padding=1)
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits for the mixture, and the same for the balance loss.

        The latter hold the temperature constant: a hotter gate looks balanced while its choice stays as skewed as ever.
        """
        score, temperature = self.score(x).mean((2, 3)), self.log_temperature.exp()
        return score / temperature, score / temperature.detach()


class MixtureOfExperts(FusionHead):
    """Experts are bottlenecks on the concatenated taps of one timestep; the output is the mean over timesteps.

    For the first `warmup_steps` training steps the mixture is dense, then it is the `top_k` experts with a softmax over
    those chosen. `aux_loss` is the balance loss times `balance`: E * sum_e usage_e * probability_e - 1, zero where all
    experts are used alike, with the usage (what the gate did) held constant and the gradient flowing through the dense
    probabilities, so that an expert that is never chosen still learns to be.

    With `released` the warm-up counts as in the released code: each timestep of each pass, in evaluation too. A pass
    may then be dense for its first timesteps and sparse for the rest. There is no balance loss.
    """

    sparse = True
    steps: Tensor

    @checked("fusion")
    def __init__(
        self,
        spec: BankSpec,
        projection_dim: Width = 384,
        norm: Norm = "group",
        init: Init = "default",
        experts: Count = 8,
        top_k: Count = 2,
        warmup_steps: Whole = 500,
        balance: NotNegative = 0.01,
        released: bool = False,
    ) -> None:
        super().__init__(spec, projection_dim)
        if top_k > experts:
            raise UserError(f"fusion.top_k is {top_k}: it must lie between 1 and fusion.experts ({experts})")
        self.experts_count, self.top_k, self.warmup_steps, self.balance = experts, top_k, warmup_steps, balance
        self.released = released
        channels = {stride: sum(spec.channels(name) for name in names) for stride, names in self.names.items()}
        self.gates = nn.ModuleDict({key(str(s)): Gate(c, experts) for s, c in channels.items()})
        self.experts = nn.ModuleDict(
            {
                key(str(s)): nn.ModuleList(Bottleneck(c, projection_dim, norm, init) for _ in range(experts))
                for s, c in channels.items()
            }
        )
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def warm(self) -> bool:
        return int(self.steps) >= self.warmup_steps

    def step_done(self) -> None:
        if not self.released:
            self.steps += 1

    def fuse(self, bank: FeatureBank) -> Fused:
        steps = len(self.spec.timesteps)
        fused = Fused({}, {}, details={"gate_usage": {}})
        balance = []
        dense = self._dense_timesteps(steps)
        for stride, names in self.names.items():
            x = torch.cat([bank.stack(name) for name in names], dim=1)
            logits, balanced = self.gates[key(str(stride))](x)
            gate = self._gate(logits, dense * len(x) // steps)
            mixed = self._mix(x, gate, stride, sparse=dense < steps)
            fused.maps[stride] = mixed.unflatten(0, (steps, -1)).mean(0)
            usage = gate.detach().mean(0)
            balance.append(self.experts_count * (usage * balanced.softmax(1).mean(0)).sum() - 1.0)
            by_step = gate.detach().unflatten(0, (steps, -1)).mean(1)
            fused.details["gate_usage"][stride] = by_step
            fused.weights[stride] = self._attribution(bank, stride, by_step)
        fused.aux_loss = None if self.released else self.balance * torch.stack(balance).mean()
        return fused

    def _dense_timesteps(self, count: int) -> int:
        """How many of a pass's timesteps, the first ones, are still dense."""
        if not self.released:
            return 0 if self.warm else count
        before = int(self.steps)
        self.steps += count
        return min(max(self.warmup_steps - before - 1, 0), count)

    def _experts(self, stride: int) -> Sequence[Bottleneck]:
        return cast(Sequence[Bottleneck], self.experts[key(str(stride))])

    def _gate(self, logits: Tensor, dense: int) -> Tensor:
        """The weights of the experts: dense for the first maps, of the chosen alone for the rest."""
        early, late = logits[:dense], logits[dense:]
        if not len(early) or not len(late):
            return early.softmax(1) if len(early) else self._chosen(late)
        return torch.cat([early.softmax(1), self._chosen(late)])

    def _chosen(self, logits: Tensor) -> Tensor:
        best, where = logits.topk(self.top_k, dim=1)
        return torch.zeros_like(logits).scatter(1, where, best.softmax(1).to(logits.dtype))

    def _mix(self, x: Tensor, gate: Tensor, stride: int, sparse: bool) -> Tensor:
        """Sum of gate * expert; once the gate is sparse, an expert computes only the maps that chose it."""
        out: Tensor | None = None
        for number, expert in enumerate(self._experts(stride)):
            rows = gate[:, number].nonzero().squeeze(1) if sparse else None
            if rows is not None and not len(rows):
                continue
            y = expert(x if rows is None else x[rows])
            y = y * (gate[:, number] if rows is None else gate[rows, number])[:, None, None, None].to(y.dtype)
            if out is None:
                out = y.new_zeros(x.shape[0], *y.shape[1:])
            out = out + y if rows is None else out.index_add(0, rows, y)
        assert out is not None  # top_k >= 1: some expert was chosen
        return out

    @torch.no_grad()
    def _attribution(self, bank: FeatureBank, stride: int, usage: Tensor) -> Tensor:
        """How much of what enters the experts comes from each (t, l): gate usage x weight norm x size of the map.

        The experts see all taps at once, so there is no softmax weight to read; this is the share of input energy,
        summing to one over the stride.
        """
        names = self.names[stride]
        widths = [self.spec.channels(name) for name in names]
        norms = torch.stack(
            [
                torch.stack([w.norm() for w in torch.cat([e.reduce.weight, e.shortcut.weight]).split(widths, dim=1)])
                for e in self._experts(stride)
            ]
        )
        size = torch.stack(
            [torch.stack([bank.map(n, t).float().square().mean().sqrt() for n in names]) for t in self.spec.timesteps]
        )
        share = (usage.float() @ norms.float()) * size
        return share / share.sum().clamp_min(torch.finfo(share.dtype).tiny)
