"""Parameters, operations and memory against numbers worked out by hand."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from satdifuser.engine.cost import PeakMemory, flops, parameter_count
from satdifuser.engine.memory import keep_memory

LINUX = pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(), reason="the memory of a process on Linux"
)
MB = 2**20


def test_a_linear_layer_takes_two_operations_for_each_product() -> None:
    assert flops(nn.Linear(5, 3), torch.zeros(7, 5)) == 2 * 7 * 5 * 3


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 2)])
def test_a_convolution_takes_two_operations_for_each_product(stride: int, groups: int) -> None:
    layer = nn.Conv2d(4, 6, 3, stride=stride, padding=1, groups=groups)
    side = 8 // stride
    assert flops(layer, torch.zeros(2, 4, 8, 8)) == 2 * 2 * 6 * side * side * (4 // groups) * 3 * 3


def test_attention_takes_the_operations_of_its_two_products() -> None:
    query, key = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    found = flops(nn.functional.scaled_dot_product_attention, query, key, key)
    assert found == 2 * (2 * 3 * 5 * 7 * 8) * 2


def test_keywords_reach_the_function_and_no_graph_is_kept() -> None:
    seen: list[bool] = []

    def double(x: torch.Tensor, *, weight: torch.Tensor) -> torch.Tensor:
        seen.append((x @ weight).requires_grad)
        return x

    assert flops(double, torch.zeros(2, 3), weight=torch.zeros(3, 4, requires_grad=True)) == 2 * 2 * 3 * 4
    assert seen == [False]


def test_parameters_are_counted_whole_or_where_they_train() -> None:
    model: Any = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm2d(4))
    model[0].weight.requires_grad_(False)
    assert parameter_count(model) == 15 + 3 + 4 + 4
    assert parameter_count(model, trainable=True) == 3 + 4 + 4
    assert parameter_count(None) == 0


def test_parameters_that_two_layers_share_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    assert parameter_count(model) == 16


@LINUX
def test_memory_that_was_held_for_a_while_is_in_the_peak() -> None:
    memory = PeakMemory()
    block = torch.ones(200 * MB, dtype=torch.uint8)
    del block
    found = memory.bytes
    assert found is not None
    assert 195 * MB < found < 260 * MB


@LINUX
@pytest.mark.parametrize("kept", [False, True])
def test_memory_that_was_freed_before_is_not_in_the_peak(kept: bool) -> None:
    if kept:
        keep_memory()  # the C library then keeps what is freed, as in training
    block = torch.ones(200 * MB, dtype=torch.uint8)
    del block
    memory = PeakMemory()
    small = torch.ones(20 * MB, dtype=torch.uint8)
    assert small[-1] == 1
    found = memory.bytes
    assert found is not None
    assert 15 * MB < found < 80 * MB


@LINUX
def test_memory_that_is_held_at_the_start_is_not_in_the_peak() -> None:
    block = torch.ones(200 * MB, dtype=torch.uint8)
    found = PeakMemory().bytes
    assert found is not None
    assert found < 40 * MB
    assert block[0] == 1


def test_where_the_system_does_not_tell_there_is_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert PeakMemory().bytes is None
