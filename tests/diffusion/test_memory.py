"""What saves memory or time changes no feature: slices that fit, layout, attention, compilation, autocast."""

from __future__ import annotations

import copy
import functools
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from satdifuser.bank import FeatureBank
from satdifuser.data.inputs import ImageInput
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import Backbone, stable_diffusion, unconditional
from satdifuser.diffusion.memory import MemoryBound
from satdifuser.diffusion.modes import MODES
from satdifuser.errors import UserError

ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    " 68719476736 bytes. Error code 12 (Cannot allocate memory)"
)
KINDS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError(ALLOCATOR),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    MemoryError(),
]
LOG = "satdifuser.diffusion.memory"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc.collect", lambda *_: 0)  # takes its time, and nothing here is a circle


class Machine:
    """Doubles numbers, `room` at a time, and remembers what it was asked."""

    def __init__(self, numbers: list[int], room: int, error: Exception) -> None:
        self.numbers, self.room, self.error = numbers, room, error
        self.asked: list[int] = []

    def __call__(self, part: slice) -> list[int]:
        own = self.numbers[part]
        self.asked.append(len(own))
        if len(own) > self.room:
            raise self.error
        return [2 * number for number in own]


def flat(parts: list[list[int]]) -> list[int]:
    return [number for part in parts for number in part]


@pytest.mark.parametrize("error", KINDS, ids=["torch", "cuda", "allocator", "cudnn", "python"])
def test_out_of_memory_halves_the_slice_until_it_fits_and_results_are_in_order(error: Exception) -> None:
    numbers = random.sample(range(1000), 11)
    machine = Machine(numbers, 3, error)
    bound = MemoryBound("batch")
    assert flat(bound.run(machine, 11)) == [2 * number for number in numbers]
    assert machine.asked == [11, 5, 2, 2, 2, 2, 2, 1]  # what was done is not done again
    assert bound.limit == 2


def test_any_number_of_inputs_in_any_room_gives_all_results_in_order() -> None:
    for _ in range(60):
        numbers = random.sample(range(1000), random.randint(1, 40))
        machine = Machine(numbers, random.randint(1, 12), random.choice(KINDS))
        start = random.choice([None, random.randint(1, 20)])
        bound = MemoryBound("batch", start)
        assert flat(bound.run(machine, len(numbers))) == [2 * number for number in numbers]
        assert machine.asked[-1] <= machine.room
        assert machine.asked[0] == min(len(numbers), start or len(numbers))


def test_the_limit_that_was_found_is_where_later_calls_begin() -> None:
    bound = MemoryBound("batch")
    machine = Machine(list(range(9)), 4, KINDS[0])
    bound.run(machine, 9)
    machine.asked.clear()
    assert flat(bound.run(machine, 9)) == [2 * number for number in range(9)]
    assert machine.asked == [4, 4, 1]
    machine.asked.clear()
    bound.run(machine, 2)
    assert machine.asked == [2]


def test_room_that_shrinks_between_calls_lowers_the_limit_again() -> None:
    machine = Machine(list(range(8)), 8, KINDS[0])
    bound = MemoryBound("batch")
    assert len(bound.run(machine, 8)) == 1
    assert bound.limit is None
    machine.room = 1
    assert flat(bound.run(machine, 8)) == [2 * number for number in range(8)]
    assert bound.limit == 1


def test_without_trouble_everything_goes_at_once_or_as_much_as_is_allowed() -> None:
    for limit, asked in [(None, [7]), (3, [3, 3, 1]), (7, [7]), (20, [7]), (1, [1] * 7)]:
        machine = Machine(list(range(7)), 7, KINDS[0])
        MemoryBound("batch", limit).run(machine, 7)
        assert machine.asked == asked
    assert MemoryBound("batch").run(Machine([], 7, KINDS[0]), 0) == []


def test_each_halving_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, LOG):
        MemoryBound("batch").run(Machine(list(range(6)), 1, KINDS[0]), 6)
    lines = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert len(lines) == 2
    assert "6 inputs" in lines[0]
    assert "going on with 3" in lines[0]
    assert "3 inputs" in lines[1]
    assert "going on with 1" in lines[1]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of range"),
        UserError("no"),
        KeyError(),
    ],
    ids=["runtime", "value", "user", "key"],
)
def test_other_errors_pass_through_at_once_and_leave_the_limit_alone(error: Exception) -> None:
    machine = Machine(list(range(8)), 2, error)
    bound = MemoryBound("batch")
    with pytest.raises(type(error)) as caught:
        bound.run(machine, 8)
    assert caught.value is error
    assert machine.asked == [8]
    assert bound.limit is None


@pytest.mark.parametrize("error", KINDS, ids=["torch", "cuda", "allocator", "cudnn", "python"])
def test_a_single_input_that_does_not_fit_is_one_line_that_names_the_setting(error: Exception) -> None:
    with pytest.raises(UserError, match=r"out of memory with a single input.*encoder\.batch") as caught:
        MemoryBound("encoder.batch").run(Machine(list(range(5)), 0, error), 5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_a_user_error_that_names_the_setting(limit: int) -> None:
    with pytest.raises(UserError, match=rf"^encoder\.batch is {limit}: [^\n]*null[^\n]*$"):
        MemoryBound("encoder.batch", limit)


def test_what_a_failed_attempt_held_is_let_go_before_the_next() -> None:
    import weakref

    held: list[Any] = []
    alive: list[bool] = []

    def greedy(part: slice) -> int:
        alive.extend(reference() is not None for reference in held)
        waste = torch.zeros(8)
        held.append(weakref.ref(waste))
        if part.stop - part.start > 1:
            raise torch.OutOfMemoryError("out of memory")
        return len(waste)

    MemoryBound("batch").run(greedy, 4)
    assert alive
    assert not any(alive)


def build(folder: Path, **changes: Any) -> DiffusionEncoder:
    common = {"taps": ["mid_block", "up_blocks.1.attentions.0"], "timesteps": [21, 61], "image_size": 16}
    prepare = ImageInput(["B04", "B03", "B02"])
    return DiffusionEncoder(copy.deepcopy(loaded(folder)), prepare=prepare, **{**common, **changes})


@functools.cache
def loaded(folder: Path) -> Backbone:
    return stable_diffusion(str(folder))


def cramped(forward: Callable[..., Any], room: int, sizes: list[int]) -> Callable[..., Any]:
    """A forward pass that has room for so many inputs."""

    def run(noisy: Tensor, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(noisy))
        if len(noisy) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return forward(noisy, *arguments, **options)

    return run


def some(count: int) -> tuple[Tensor, list[str]]:
    return torch.rand(count, 13, 16, 16) * 0.3, [f"tile-{random.randrange(10**9)}" for _ in range(count)]


def close(got: FeatureBank, wanted: FeatureBank, atol: float = 5e-5) -> None:
    for tap in wanted:  # rounding, carried along a path
        torch.testing.assert_close(got[tap], wanted[tap], atol=atol, rtol=1e-5, msg=lambda m, t=tap: f"{t}: {m}")


def equal(got: FeatureBank, wanted: FeatureBank) -> bool:
    return all(torch.equal(got[tap], wanted[tap]) for tap in wanted)


@pytest.mark.parametrize("mode", MODES)
def test_features_made_where_memory_is_short_are_those_made_where_it_is_not(mode: str, latent_folder: Path) -> None:
    images, ids = some(5)
    wanted = build(latent_folder, mode=mode)(images, sample_ids=ids)
    encoder = build(latent_folder, mode=mode)
    sizes: list[int] = []
    encoder.network.unet.forward = cramped(encoder.network.unet.forward, 2, sizes)
    got = encoder(images, sample_ids=ids)
    assert sizes[0] == (10 if mode == "noise" else 5)  # both timesteps, or one level after the other
    assert encoder.network.memory.limit == 2
    close(got, wanted)
    sizes.clear()
    again = encoder(images, sample_ids=ids)
    assert max(sizes) == 2
    assert equal(again, got)
    assert not any(module._forward_hooks for module in encoder.modules())  # those of failed passes too


def test_images_that_do_not_fit_in_the_vae_at_once_go_through_it_in_parts(latent_folder: Path) -> None:
    images, ids = some(5)
    wanted = build(latent_folder, posterior="sample")(images, sample_ids=ids)
    encoder = build(latent_folder, posterior="sample")
    assert encoder.latents is not None
    sizes: list[int] = []
    encoder.latents.vae.encoder.forward = cramped(encoder.latents.vae.encoder.forward, 2, sizes)
    got = encoder(images, sample_ids=ids)
    assert sizes == [5, 2, 2, 1]
    close(got, wanted)


def test_the_bound_that_a_user_sets_is_kept_by_the_unet_from_the_first_pass(latent_folder: Path) -> None:
    images, ids = some(4)
    encoder = build(latent_folder, batch=3)
    sizes: list[int] = []
    encoder.network.unet.forward = cramped(encoder.network.unet.forward, 100, sizes)
    encoder(images, sample_ids=ids)
    assert sizes == [3, 3, 2]


def test_the_bound_that_a_user_sets_is_kept_by_the_vae_too(latent_folder: Path) -> None:
    images, ids = some(4)
    encoder = build(latent_folder, batch=3)
    assert encoder.latents is not None
    sizes: list[int] = []
    encoder.latents.vae.encoder.forward = cramped(encoder.latents.vae.encoder.forward, 100, sizes)
    encoder(images, sample_ids=ids)
    assert max(sizes) <= 3, sizes


def test_one_sample_that_does_not_fit_is_a_user_error_and_leaves_no_hook(latent_folder: Path) -> None:
    encoder = build(latent_folder)
    encoder.network.unet.forward = cramped(encoder.network.unet.forward, 0, [])
    with pytest.raises(UserError, match=r"single input: [^\n]*encoder\.batch[^\n]*$"):
        encoder(torch.zeros(2, 13, 16, 16), sample_ids=["a", "b"])
    assert not any(module._forward_hooks for module in encoder.modules())


@pytest.mark.parametrize("mode", MODES)
def test_a_trainers_autocast_changes_nothing(mode: str, latent_folder: Path) -> None:
    images, ids = some(2)
    encoder = build(latent_folder, mode=mode)
    wanted = encoder(images, sample_ids=ids)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype
            assert equal(encoder(images, sample_ids=ids), wanted)


@pytest.mark.parametrize("mode", MODES)
def test_another_memory_layout_changes_nothing(mode: str, latent_folder: Path) -> None:
    images, ids = some(2)
    encoder = build(latent_folder, mode=mode, channels_last=True)
    weight = encoder.network.unet.get_submodule("mid_block.resnets.0.conv1").weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    close(encoder(images, sample_ids=ids), build(latent_folder, mode=mode)(images, sample_ids=ids), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "backend"), [("noise", "inductor"), ("inversion", "eager")])
def test_compilation_changes_nothing_in_any_mode_and_batch(
    mode: str, backend: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))  # eager: traced alone
    plain, compiled = (
        DiffusionEncoder(
            unconditional(str(tiny_folder)),
            prepare=ImageInput(["B04", "B03", "B02"]),
            taps=["mid_block"],
            timesteps=[20, 41],
            image_size=16,
            mode=mode,
            compile=compile,
        )
        for compile in (False, True)
    )
    for count in (2, 2, 3):
        images, ids = some(count)
        close(compiled(images, sample_ids=ids), plain(images, sample_ids=ids), atol=1e-4)


@pytest.mark.slow
def test_a_compiled_pass_is_one_graph_without_what_comes_after_the_last_tap(
    latent_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    counts: dict[str, list[int]] = {"early": [], "late": []}
    found: dict[str, Any] = {}
    for word, taps in (("early", ["conv_in"]), ("late", ["up_blocks.1"])):

        def count(graph: Any, inputs: Any, word: str = word) -> Any:
            counts[word].append(sum("convolution" in str(node.target) for node in graph.graph.nodes))
            return make_boxed_func(graph.forward)

        torch._dynamo.reset()
        backend = aot_autograd(fw_compiler=count)
        with monkeypatch.context() as patched:
            patched.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
            encoder = build(latent_folder, compile=True, taps=taps)
        images, ids = some(2)
        with torch.inference_mode():
            found[word] = encoder(images, sample_ids=ids), build(latent_folder, taps=taps)(images, sample_ids=ids)
            encoder(images, sample_ids=ids)
    assert counts["early"] == [1]
    assert len(counts["late"]) == 1
    assert counts["late"][0] > 10
    for compiled, plain in found.values():
        close(compiled, plain, atol=1e-4)


def test_xformers_attention_where_it_is_missing_is_pytorchs_and_one_warning(
    latent_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "xformers.ops", None)  # an import of it fails
    images, ids = some(2)
    with caplog.at_level(logging.WARNING, "satdifuser"):
        wanted = build(latent_folder)(images, sample_ids=ids)
        encoder = build(latent_folder, attention="xformers")
    (record,) = (record for record in caplog.records if record.name.startswith("satdifuser"))
    assert "encoder.attention=xformers" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert equal(encoder(images, sample_ids=ids), wanted)


def test_an_unknown_attention_is_a_user_error(latent_folder: Path) -> None:
    with pytest.raises(UserError, match=r"encoder\.attention is 'flash'[^\n]*sdpa or xformers[^\n]*$"):
        build(latent_folder, attention="flash")
