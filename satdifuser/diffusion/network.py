"""The frozen UNet as features read it: at its taps, in slices that fit in memory, and no further than it must run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.bank import Tap
from satdifuser.diffusion.memory import MemoryBound
from satdifuser.diffusion.taps import as_map, keep_reading, recording, turns

Maps = dict[str, Tensor]
Evaluate = Callable[[Tensor, Tensor, Tensor | None, bool, bool], tuple[Maps, Tensor | None]]


class TappedUNet(nn.Module):
    """A UNet, its conditioning and its taps (without timesteps, in the order of computation).

    Weights and activations have the UNet's precision; what comes in and the prediction that goes out stay in float32,
    since a path of many steps adds up its rounding. Maps leave as `output_dtype`.
    """

    def __init__(
        self,
        unet: Any,
        taps: Sequence[Tap],
        image_size: int,
        *,
        prompt: Tensor | None = None,
        output_dtype: torch.dtype = torch.float32,
        batch: int | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.unet = unet.eval().requires_grad_(False)
        self.prompt: Tensor | None
        self.read_at(taps, image_size)
        self.output_dtype = output_dtype
        self.dtype: torch.dtype = next(unet.parameters()).dtype
        self.memory = MemoryBound("encoder.batch", batch)
        self.register_buffer("prompt", None if prompt is None else prompt.to(self.dtype), persistent=False)
        self._run = self._compiled() if compiled else self._evaluate

    def read_at(self, taps: Sequence[Tap], image_size: int) -> None:
        """Read these taps from now on."""
        self.names = [tap.name for tap in taps]
        self.sizes = {tap.name: image_size // tap.stride for tap in taps}

    def read(self, noisy: Tensor, timesteps: Tensor, metadata: Tensor | None = None) -> Maps:
        """The maps at each tap; the network stops after the last one."""
        return self._sliced(noisy, timesteps, metadata, tapped=True, finish=False)[0]

    def predict(self, noisy: Tensor, timesteps: Tensor, metadata: Tensor | None = None) -> Tensor:
        """What the network predicts, in float32."""
        output = self._sliced(noisy, timesteps, metadata, tapped=False, finish=True)[1]
        assert output is not None
        return output

    def read_and_predict(self, noisy: Tensor, timesteps: Tensor, metadata: Tensor | None = None) -> tuple[Maps, Tensor]:
        """Both, from one pass through the whole network."""
        maps, output = self._sliced(noisy, timesteps, metadata, tapped=True, finish=True)
        assert output is not None
        return maps, output

    def _sliced(
        self, noisy: Tensor, timesteps: Tensor, metadata: Tensor | None, *, tapped: bool, finish: bool
    ) -> tuple[Maps, Tensor | None]:
        def part(rows: slice) -> tuple[Maps, Tensor | None]:
            own = None if metadata is None else metadata[rows]
            return self._run(noisy[rows], timesteps[rows], own, tapped, finish)

        parts = self.memory.run(part, len(noisy))
        maps = {name: _join([found[name] for found, _ in parts]) for name in self.names} if tapped else {}
        return maps, _join([output for _, output in parts if output is not None]) if finish else None

    def _evaluate(
        self, noisy: Tensor, timesteps: Tensor, metadata: Tensor | None, tapped: bool, finish: bool
    ) -> tuple[Maps, Tensor | None]:
        output = None
        with recording(self.unet, self.names if tapped else [], last=None if finish else self.names[-1]) as read:
            output = self._forward(noisy, timesteps, metadata)
        return self._maps(read), output

    def _compiled(self) -> Evaluate:
        """The whole pass as one graph, of which the compiler itself leaves out what comes after the last tap.

        The taps are set once, for good: setting them would cut the graph at each. That is at the first pass, when an
        adapter has put its layers where it wants them.
        """
        read: Maps = {}
        on, set_up = [False], list[bool]()

        def evaluate(
            noisy: Tensor, timesteps: Tensor, metadata: Tensor | None, tapped: bool, finish: bool
        ) -> tuple[Maps, Tensor | None]:
            output = self._forward(noisy, timesteps, metadata)
            maps = self._maps(read) if tapped else {}
            read.clear()
            return maps, output if finish else None

        compiled: Evaluate = torch.compile(evaluate)

        def run(
            noisy: Tensor, timesteps: Tensor, metadata: Tensor | None, tapped: bool, finish: bool
        ) -> tuple[Maps, Tensor | None]:
            with turns(self.unet):
                if not set_up:
                    keep_reading(self.unet, self.names, read, on)
                    set_up.append(True)
                on[0] = True
                try:
                    return compiled(noisy, timesteps, metadata, tapped, finish)
                finally:
                    on[0] = False

        return run

    def _forward(self, noisy: Tensor, timesteps: Tensor, metadata: Tensor | None) -> Tensor:
        options: dict[str, Any] = {}
        if self.prompt is not None:
            options["encoder_hidden_states"] = self.prompt.expand(len(noisy), -1, -1)
        if metadata is not None:
            options["added_cond_kwargs"] = {"metadata": metadata}
        output: Tensor = self.unet(noisy.to(self.dtype), timesteps, return_dict=False, **options)[0].float()
        return output

    def _maps(self, read: Maps) -> Maps:
        return {name: as_map(value, self.sizes[name]).to(self.output_dtype) for name, value in read.items()}


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
