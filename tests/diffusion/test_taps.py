"""Taps: what a plain hook reads, with an early exit that really exits and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from satdifuser.bank import Tap
from satdifuser.diffusion.taps import recording, trace
from satdifuser.errors import UserError


class Net(nn.Module):
    """Registered in another order than computed; `pair` gives a tuple, `vector` no map, `never` is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Conv2d(8, 2, 1)
        self.never = nn.Conv2d(1, 1, 1)
        self.early = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Conv2d(6, 8, 1)])
        self.pair = Pair()
        self.vector = nn.Flatten()
        self.calls: list[str] = []
        for name in ("early", "blocks.0", "blocks.1", "late"):
            self.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: self.calls.append(name))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](self.early(x))
        x, _ = self.pair(self.blocks[1](x))
        self.vector(x)
        return self.late(x)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x * 3


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def plain(network: nn.Module, name: str, x: Tensor) -> Tensor:
    """What PyTorch's own hook gives."""
    got: list[Tensor] = []
    hook = network.get_submodule(name).register_forward_hook(
        lambda _m, _i, out: got.append(out[0] if isinstance(out, tuple) else out)
    )
    network(x)
    hook.remove()
    return got[0]


NAMES = ["late", "blocks.1", "early", "pair"]


@pytest.mark.parametrize("last", [None, "late"])
def test_recording_gives_exactly_what_a_plain_hook_gives(last: str | None) -> None:
    network, x = Net(), torch.randn(2, 3, 16, 16)
    with recording(network, NAMES, last=last) as read:
        network(x)
    assert set(read) == set(NAMES)
    for name in NAMES:
        assert torch.equal(read[name], plain(network, name, x)), name


def test_the_pass_stops_at_the_last_tap_and_code_after_it_does_not_run() -> None:
    network, reached = Net(), []
    with recording(network, ["early", "blocks.0"], last="blocks.0") as read:
        network(torch.randn(1, 3, 8, 8))
        reached.append("after")
    assert network.calls == ["early", "blocks.0"]
    assert reached == []
    assert set(read) == {"early", "blocks.0"}
    assert hooks(network) == 0


def test_without_a_last_tap_the_pass_runs_to_its_end() -> None:
    network = Net()
    with recording(network, ["early"]):
        network(torch.randn(1, 3, 8, 8))
    assert network.calls == ["early", "blocks.0", "blocks.1", "late"]
    assert hooks(network) == 0


def test_gradients_flow_through_what_was_recorded() -> None:
    network, x = Net(), torch.randn(1, 3, 8, 8, requires_grad=True)
    with recording(network, ["blocks.0"], last="blocks.0") as read:
        network(x)
    read["blocks.0"].square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_an_exception_inside_is_passed_on_and_the_hooks_are_removed() -> None:
    network = Net()
    with pytest.raises(RuntimeError, match="channels"), recording(network, NAMES, last="late"):
        network(torch.randn(1, 5, 8, 8))
    assert hooks(network) == 0
    with pytest.raises(KeyboardInterrupt), recording(network, NAMES):
        raise KeyboardInterrupt
    assert hooks(network) == 0


def test_an_unknown_name_leaves_no_hook_behind() -> None:
    network = Net()
    with pytest.raises(AttributeError), recording(network, ["early", "nowhere"]):
        network(torch.randn(1, 3, 8, 8))
    assert hooks(network) == 0


def test_tracing_orders_taps_as_computed_with_their_channels_and_strides() -> None:
    network = Net()
    taps = trace(network, NAMES, lambda: network(torch.zeros(1, 3, 32, 32)), 32)
    assert taps == (
        Tap("early", None, 0, 4, 2),
        Tap("blocks.1", None, 1, 8, 4),
        Tap("pair", None, 2, 8, 4),
        Tap("late", None, 3, 2, 4),
    )
    assert hooks(network) == 0


def test_an_unknown_tap_is_an_error_that_lists_near_ones() -> None:
    network = Net()
    with pytest.raises(UserError, match=r"'block\.1'.*did you mean.*blocks\.1") as caught:
        trace(network, ["early", "block.1"], lambda: pytest.fail("ran"), 8)
    assert "\n" not in str(caught.value)


def test_a_tap_asked_for_twice_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="'early' is asked for twice"):
        trace(Net(), ["late", "early", "early"], lambda: pytest.fail("ran"), 8)


def test_a_tap_that_gives_no_map_is_refused_with_its_shape() -> None:
    network = Net()
    with pytest.raises(UserError, match=r"'vector' gives \(1, 32\)"):
        trace(network, ["early", "vector"], lambda: network(torch.zeros(1, 3, 8, 8)), 8)
    assert hooks(network) == 0


@pytest.mark.parametrize("name", ["never", "blocks"])
def test_a_tap_that_the_network_does_not_call_is_refused(name: str) -> None:
    network = Net()
    with pytest.raises(UserError, match=name):
        trace(network, ["early", name], lambda: network(torch.zeros(1, 3, 8, 8)), 8)
