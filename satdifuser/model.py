"""The data flow in one place: images -> encoder -> bank (-> pooling) (-> temporal) -> fusion -> decoder -> logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.data.base import Batch
from satdifuser.data.inputs import sample_check
from satdifuser.decoders.base import Decoder
from satdifuser.fusion.base import Fused, FusionHead
from satdifuser.losses.base import Loss
from satdifuser.pooling import Pooling
from satdifuser.tasks.base import Task
from satdifuser.temporal import TemporalHead, read


@dataclass
class Output:
    """The logits of a batch, and the fused pyramid they came from (its weights and auxiliary loss)."""

    logits: Tensor
    fused: Fused


class FeatureModel(nn.Module):
    """Encoder (live, or none where banks come from a store), fusion head and decoder for a task.

    Of a live encoder's features only those that `reads` names go on (None: all of them).
    With a `pooling`, the head gets what that leaves of the maps (of each date, as a store keeps them); with a
    `temporal`, one bank of those of all dates.
    A frozen encoder stays in evaluation mode and outside the checkpoints: its spec names its weights. Of an adapted
    encoder, what trains is in them. A `loss` of None is the task's own.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        fusion: FusionHead,
        decoder: Decoder,
        task: Task,
        pooling: Pooling | None = None,
        temporal: TemporalHead | None = None,
        reads: BankSpec | None = None,
        loss: Loss | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.pooling, self.temporal, self.reads = encoder, pooling, temporal, reads
        self.fusion, self.decoder, self.task, self.loss = fusion, decoder, task, loss
        self.frozen = encoder is None or not any(p.requires_grad for p in encoder.parameters())
        self.train(self.training)

    def train(self, mode: bool = True) -> FeatureModel:
        super().train(mode)
        if self.encoder is not None and self.frozen:
            self.encoder.eval()
        return self

    @property
    def sparse(self) -> bool:
        """Whether some of what trains may get no gradient in a step: what a head or decoder skips, or nobody reads."""
        given: Any = None if self.encoder is None or self.frozen else self.encoder.spec
        unread = given is not None and self.reads is not None and len(given.taps) > len(self.reads.taps)
        return self.fusion.sparse or self.decoder.sparse or unread

    @property
    def check(self) -> Callable[[Any], str | None] | None:
        """What a live encoder needs of a sample, asked where the sample is read."""
        return None if self.encoder is None else sample_check(self.encoder)

    def bank(self, batch: Batch) -> FeatureBank:
        """What the head gets: features as read from a store, or computed now from images or stored latents."""
        bank = batch.get("bank")
        if bank is None or "latent" in bank.spec.names():
            assert self.encoder is not None
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                bank = read(self.encoder, batch)
            if self.reads is not None and bank.spec != self.reads:
                bank = bank.select(self.reads)
        if self.pooling is not None:
            bank = self.pooling.bank(bank)
        if self.temporal is not None:
            bank = self.temporal(bank, batch.get("dates"), batch["id"])
        kind = bank.device.type  # under autocast, once what every layer would else convert for itself
        return bank.to(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32)

    def forward(self, batch: Batch, size: tuple[int, int] | None = None) -> Output:
        """Dense logits are brought to `size`, or else to that of the label, which the batch must then have."""
        fused = self.fusion(self.bank(batch))
        fused.maps = self.decoder.read(fused.maps)
        return Output(self.decoder(fused.maps, self.task.size(batch) if size is None else size), fused)

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of the loss that was chosen, or of the task's own: what `count` counts, added up; or several such sums."""
        return (self.task if self.loss is None else self.loss).loss_sum(logits, batch)

    def count(self, batch: Batch) -> Tensor:
        """What each sum is to be divided by."""
        return (self.task if self.loss is None else self.loss).count(batch)

    def learn(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """What task and loss have to know of the training labels."""
        self.task.learn(batches())
        if self.loss is not None:
            self.loss.learn(batches())

    def trained_state(self) -> dict[str, Tensor]:
        """What a checkpoint holds: everything but a frozen encoder, or what is frozen of an adapted one."""
        outside = set() if self.encoder is None else {f"encoder.{name}" for name in fixed_of(self.encoder)}
        return {name: value for name, value in self.state_dict().items() if name not in outside}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        expected = self.trained_state()
        wrong = sorted(expected.keys() ^ state.keys())
        if wrong:
            raise ValueError(f"{len(wrong)} weights do not match, among them {', '.join(wrong[:4])}")
        self.load_state_dict(state, strict=False)


def fixed_of(encoder: nn.Module) -> Iterator[str]:
    """Frozen parameters of an encoder, and the buffers of modules of which nothing trains: its weights name both."""
    for prefix, module in encoder.named_modules(remove_duplicate=False):
        own = list(module.named_parameters(recurse=False))
        buffers = [] if any(p.requires_grad for _, p in own) else list(module.named_buffers(recurse=False))
        for name, _ in [*((n, p) for n, p in own if not p.requires_grad), *buffers]:
            yield f"{prefix}.{name}" if prefix else name
