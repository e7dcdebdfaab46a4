"""Heads and decoders that the released code has trained: their weights by our names and in our order of taps.

Its bottlenecks, mixing weights, gates and joined channels are in `released_order`, its timesteps from the least noisy;
ours are in the order of computation, by name. Its temperatures are plain numbers, ours their logarithms. Convolutions
of its UPerNet have a bias before BatchNorm: it goes into the running mean, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec
from satdifuser.decoders import Decoder, LinearDecoder, UPerNet
from satdifuser.errors import UserError
from satdifuser.fusion import FusionHead, GlobalWeighted, LocalizedWeighted, MixtureOfExperts
from satdifuser.fusion.base import key
from satdifuser.fusion.order import WALKED, released_order
from satdifuser.tensors import TensorsError, read_tensors

NET = "decoder_net."


def as_it_is(weight: Tensor) -> Tensor:
    return weight


@dataclass(frozen=True)
class Rule:
    """Where one of our weights comes from: theirs by name, what is made of them, their shape (None: as ours)."""

    ours: str
    theirs: tuple[str, ...]
    make: Callable[..., Tensor] = as_it_is
    shape: tuple[int, ...] | None = None


def read_released(path: Path) -> dict[str, Tensor]:
    """The weights of a head and decoder in a checkpoint of the released code, and nothing else that is in it."""
    try:
        found = read_tensors(path)
    except TensorsError as error:
        raise UserError(str(error)) from error
    state = {name.removeprefix(NET).removeprefix("module."): t for name, t in found.items() if name.startswith(NET)}
    if not state:
        raise UserError(f"{path} has no {NET.rstrip('.')}: it is no checkpoint of the released SatDiFuser code")
    return state


def from_released(state: Mapping[str, Tensor], fusion: FusionHead, decoder: Decoder, named: str) -> dict[str, Tensor]:
    """The state of a model's head (`fusion.*`) and decoder (`decoder.*`); all that is given is used, and all is given.

    `named` is what an error calls the state: the path of its file.
    """
    own = {f"fusion.{name}": value for name, value in fusion.state_dict().items()}
    own |= {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    rules = [*_head(fusion), *_decoder(decoder)]
    given = {rule.ours: rule for rule in rules}
    asked = {name for rule in rules for name in rule.theirs}
    bare = sorted(name for name in asked - state.keys() if ".0.shortcut." in name)
    if bare and bare[0].replace("shortcut.norm", "conv1.norm").replace("shortcut", "conv1") in state:
        raise UserError(
            f"{named}: {bare[0].partition('.shortcut')[0]} has no shortcut, as it has as many channels before it as"
            " behind it: ours always has one, so it cannot be imported"
        )
    wrong = [f"{name} is missing" for name in sorted(asked - state.keys())]
    wrong += [f"{name} is unknown" for name in sorted(state.keys() - asked)]
    wrong += [f"nothing is for {name}" for name in sorted(own.keys() - given.keys())]
    for rule in rules:
        expected = tuple(own[rule.ours].shape) if rule.shape is None else rule.shape
        wrong += [
            f"{name} is {tuple(state[name].shape)} instead of {expected}"
            for name in rule.theirs
            if name in state and tuple(state[name].shape) != expected
        ]
    if wrong:
        shown = "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        raise UserError(
            f"{named} is of another head, decoder or taps than these settings make ({len(wrong)} weights): {shown}"
        )
    for name, value in state.items():
        if name.endswith(".temperature") and not float(value) > 0:
            raise UserError(f"{named}: {name} is {float(value):g}, and a temperature must be above zero")
    return {name: rule.make(*(state[n] for n in rule.theirs)).to(own[name].dtype) for name, rule in given.items()}


def _head(head: FusionHead) -> Iterator[Rule]:
    strange = [name for name in head.spec.names() if WALKED.fullmatch(name) is None]
    if strange:
        raise UserError(f"the released code reads no tap {strange[0]}: set encoder.taps=satdifuser")
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in head.modules()):
        raise UserError("the released heads have GroupNorm: set fusion.norm=group")
    other = {m.num_groups for m in head.modules() if isinstance(m, nn.GroupNorm)} - {32}
    if other:
        raise UserError(
            "the released heads have 32 groups in each GroupNorm, and with"
            f" fusion.projection_dim={head.pyramid.channels} ours have {min(other)}"
        )
    if isinstance(head, GlobalWeighted):
        yield from _projections(head.spec)
        yield _mixing(head.spec)
    elif isinstance(head, LocalizedWeighted):
        yield from _projections(head.spec)
        for s, stride in enumerate(head.spec.strides):
            rows = _rows(head.spec, head.names[stride])
            for part in ("weight", "bias"):
                ours, theirs = f"fusion.score.{stride}.{part}", f"gate_modules.{s}.gate_conv.{part}"
                yield Rule(ours, (theirs,), lambda value, rows=rows: value[rows])
    elif isinstance(head, MixtureOfExperts):
        yield from _mixtures(head)
    else:
        raise UserError(f"the released code has no head as {type(head).__name__}: set fusion to gw, lw or moe")


def _projections(spec: BankSpec) -> Iterator[Rule]:
    for number, name in enumerate(_order(spec)):
        yield from _bottleneck(f"fusion.project.{key(name)}", f"bottleneck_layers.{number}")


def _order(spec: BankSpec) -> list[str]:
    """Of all strides, from the finest."""
    return [name for stride in spec.strides for name in released_order(spec.names(stride))]


def _least_noisy_first(spec: BankSpec) -> list[int]:
    """The place of each of our timesteps in their order."""
    order = sorted(spec.timesteps, key=lambda t: -1 if t is None else t)
    return [order.index(t) for t in spec.timesteps]


def _mixing(spec: BankSpec) -> Rule:
    order = _order(spec)
    columns, steps = [order.index(name) for name in spec.names()], _least_noisy_first(spec)

    def ours(mixing: Tensor) -> Tensor:
        return mixing.view(len(steps), len(columns))[steps][:, columns]

    return Rule("fusion.logits", ("mixing_weights",), ours, (len(steps) * len(columns),))


def _rows(spec: BankSpec, names: tuple[str, ...]) -> list[int]:
    """The place of each of our (timestep, tap) of a stride among theirs, which go through the taps first."""
    order = released_order(names)
    return [step * len(names) + order.index(name) for step in _least_noisy_first(spec) for name in names]


def _mixtures(head: MixtureOfExperts) -> Iterator[Rule]:
    for s, stride in enumerate(head.spec.strides):
        channels = _channels(head.spec, head.names[stride])
        gate = f"fusion.gates.{stride}"
        mixture = f"scale_moes.{s}"
        score = f"{mixture}.gate_network.0"
        yield Rule(f"{gate}.score.weight", (f"{score}.weight",), lambda value, order=channels: value[:, order])
        yield Rule(f"{gate}.score.bias", (f"{score}.bias",))
        yield Rule(f"{gate}.log_temperature", (f"{mixture}.temperature",), torch.log)
        for number in range(head.experts_count):
            yield from _bottleneck(f"fusion.experts.{stride}.{number}", f"{mixture}.experts.{number}", channels)
    yield Rule("fusion.steps", (), lambda: torch.tensor(head.warmup_steps))  # theirs is not kept: it is past it


def _channels(spec: BankSpec, names: tuple[str, ...]) -> list[int]:
    """The place of each channel of our joined taps in theirs."""
    order = released_order(names)
    start = {name: sum(map(spec.channels, order[: order.index(name)])) for name in names}
    return [start[name] + channel for name in names for channel in range(spec.channels(name))]


def _bottleneck(ours: str, theirs: str, inputs: list[int] | None = None) -> Iterator[Rule]:
    def ordered(weight: Tensor) -> Tensor:
        return weight if inputs is None else weight[:, inputs]

    for number, (layer, block) in enumerate(
        [("reduce", "conv1"), ("spread", "conv2"), ("expand", "conv3"), ("shortcut", "shortcut")], start=1
    ):
        make = ordered if layer in ("reduce", "shortcut") else as_it_is
        yield Rule(f"{ours}.{layer}.weight", (f"{theirs}.0.{block}.weight",), make)
        for part in ("weight", "bias"):
            yield Rule(f"{ours}.norm{number}.{part}", (f"{theirs}.0.{block}.norm.{part}",))


def _decoder(decoder: Decoder) -> Iterator[Rule]:
    if isinstance(decoder, UPerNet):
        yield from _upernet(decoder)
    elif isinstance(decoder, LinearDecoder) and not decoder.dense:
        for part in ("weight", "bias"):
            yield Rule(f"decoder.classify.{part}", (f"decoder_head.2.{part}",))
    else:
        raise UserError("the released code has no linear decoder of pixels: set decoder=upernet decoder.norm=batch")


def _upernet(decoder: UPerNet) -> Iterator[Rule]:
    if not any(isinstance(m, nn.BatchNorm2d) for m in decoder.modules()):
        raise UserError("the released UPerNet has BatchNorm: set decoder.norm=batch")
    *finer, _ = decoder.pyramid.strides
    levels = len(decoder.pyramid.strides)
    for number in range(len(decoder.pool_scales)):
        yield from _convolution(f"pooled.{number}", f"psp_modules.{number}", first=1)
    yield from _convolution("bottleneck", "bottleneck")
    for number, stride in enumerate(finer):
        yield from _convolution(f"lateral.{stride}", f"lateral_convs.{number}")
        yield from _convolution(f"smooth.{stride}", f"fpn_convs.{number}")
    # theirs are joined from the finest to the coarsest, ours the other way round
    yield from _convolution("fuse", "fpn_bottleneck", lambda w: w.unflatten(1, (levels, -1)).flip(1).flatten(1, 2))
    for part in ("weight", "bias"):
        yield Rule(f"decoder.classify.{part}", (f"conv_seg.{part}",))


def _convolution(ours: str, theirs: str, make: Callable[[Tensor], Tensor] = as_it_is, first: int = 0) -> Iterator[Rule]:
    """Convolution and BatchNorm; `first` is the convolution's place."""
    bias, norm = f"{theirs}.{first}.bias", f"{theirs}.{first + 1}"
    yield Rule(f"decoder.{ours}.0.weight", (f"{theirs}.{first}.weight",), make)
    yield Rule(f"decoder.{ours}.1.running_mean", (f"{norm}.running_mean", bias), lambda mean, bias: mean - bias)
    for part in ("weight", "bias", "running_var", "num_batches_tracked"):
        yield Rule(f"decoder.{ours}.1.{part}", (f"{norm}.{part}",))
