"""Which taps a word, a list or a selection means, and that every tap that is listed can be read."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from satdifuser.bank import Tap
from satdifuser.data.inputs import RGB, ImageInput
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import Backbone, diffusionsat, stable_diffusion, unconditional
from satdifuser.diffusion.selection import choose_taps, kind_of, list_taps
from satdifuser.errors import UserError


@pytest.fixture(scope="module")
def pixels(tiny_folder: Path) -> Backbone:
    return unconditional(str(tiny_folder), blueprint=True)


@pytest.fixture(scope="module")
def latents(latent_folder: Path) -> Backbone:
    """Down: a block with attention, one without; up: one without, one with. Images of 32 px are latents of 8."""
    return stable_diffusion(str(latent_folder), blueprint=True)


@pytest.fixture(scope="module")
def there(latents: Backbone) -> list[Tap]:
    return list_taps(latents, 32)


@pytest.fixture
def listed_once(monkeypatch: pytest.MonkeyPatch, there: list[Tap]) -> None:
    """A pass through the shapes takes longer than everything else that a selection of `latents` does."""
    monkeypatch.setattr("satdifuser.diffusion.selection.list_taps", lambda backbone, image_size: there)


def names(backbone: Backbone, *wanted: Any, size: int = 32) -> list[str]:
    return [tap.name for tap in choose_taps(backbone, list(wanted), size)]


def complaint(backbone: Backbone, wanted: Any) -> str:
    with pytest.raises(UserError) as caught:
        choose_taps(backbone, wanted, 32)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def plain_kind(name: str) -> str:
    """The kind of a module by the last words of its name, spelt out."""
    *path, last = name.split(".")
    if last in ("conv_in", "conv_out") and not path:
        return last
    if name == "mid_block" or (len(path) == 1 and path[0] in ("down_blocks", "up_blocks")):
        return "block"
    if last in ("conv1", "conv2", "norm1", "norm2") and path[-2:-1] == ["resnets"]:
        return last
    if last in ("attn1", "attn2", "ff", "norm1", "norm2", "norm3") and path[-2] == "transformer_blocks":
        return last
    owners = {"resnets": "resnet", "attentions": "attention", "downsamplers": "sampler", "upsamplers": "sampler"}
    return owners.get(path[-1], "") if path else ""


def computed(network: nn.Module, *inputs: Any, **options: Any) -> list[tuple[str, Tensor]]:
    """Name and output of every module that is computed, in the order in which they end."""
    found: list[tuple[str, Tensor]] = []

    def reader(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            found.append((name, value.clone() if isinstance(value, Tensor) else torch.empty(0)))

        return hook

    hooks = [module.register_forward_hook(reader(name)) for name, module in network.named_modules() if name]
    with torch.no_grad():
        network(*inputs, **options)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("architecture", ["sd21", "sd15", "diffusionsat"])
def test_the_published_selection_is_21_taps_of_four_sizes(architecture: str) -> None:
    make = diffusionsat if architecture == "diffusionsat" else stable_diffusion
    taps = choose_taps(make("nowhere", architecture=architecture, blueprint=True), "satdifuser", 256)
    assert all(tap.name.startswith("up_blocks.") for tap in taps)
    assert Counter((tap.name.rpartition(".")[2], tap.channels, 256 // tap.stride) for tap in taps) == {
        ("conv2", 1280, 4): 3,
        ("conv2", 1280, 8): 3,
        ("attn1", 1280, 8): 3,
        ("conv2", 640, 16): 3,
        ("attn1", 640, 16): 3,
        ("conv2", 320, 32): 3,
        ("attn1", 320, 32): 3,
    }
    assert sum(tap.channels * (256 // tap.stride) ** 2 for tap in taps) == 3_502_080
    assert [tap.depth for tap in taps] == list(range(21))
    assert [tap.timestep for tap in taps] == [None] * 21
    assert [256 // tap.stride for tap in taps] == sorted(256 // tap.stride for tap in taps)


def test_on_the_shipped_unet_the_published_selection_takes_convolutions_and_attentions_of_the_up_path() -> None:
    taps = choose_taps(unconditional(blueprint=True), "satdifuser", 64)
    wanted = {f"up_blocks.0.attentions.{i}" for i in range(2)}
    wanted |= {f"up_blocks.{b}.resnets.{i}.conv2" for b in range(2) for i in range(2)}
    assert {tap.name for tap in taps} == wanted
    assert len(taps) == 6


@pytest.mark.usefixtures("listed_once")
@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        ({"block": "up", "module": "conv2"}, [f"up_blocks.{b}.resnets.{i}.conv2" for b in (0, 1) for i in (0, 1)]),
        ({"block": "mid", "module": "resnet"}, ["mid_block.resnets.0", "mid_block.resnets.1"]),
        ({"block": "down", "module": "attn1"}, ["down_blocks.0.attentions.0.transformer_blocks.0.attn1"]),
        (
            {"block": "up_blocks.1", "module": ["ff", "attn2"]},
            [f"up_blocks.1.attentions.{i}.transformer_blocks.0.{m}" for i in (0, 1) for m in ("attn2", "ff")],
        ),
        ({"block": ["mid", "down"], "module": "block"}, ["down_blocks.0", "down_blocks.1", "mid_block"]),
        ({"block": ["up_blocks.1", "mid"], "module": "conv1", "index": [0, -1]},
         ["mid_block.resnets.0.conv1", "up_blocks.1.resnets.1.conv1"]),
        ({"module": "sampler"}, ["down_blocks.0.downsamplers.0", "up_blocks.0.upsamplers.0"]),
        ({"module": "conv_in"}, ["conv_in"]),
        ({"module": ["conv_out", "conv_in"]}, ["conv_in", "conv_out"]),
        ({"module": "attention", "index": 0}, ["down_blocks.0.attentions.0"]),
        ({"module": "attention", "index": [-1, 1]}, ["mid_block.attentions.0", "up_blocks.1.attentions.1"]),
        ({"module": "block", "index": None, "block": "up"}, ["up_blocks.0", "up_blocks.1"]),
        (
            {"block": "up", "module": "attn1|attention"},
            [f"up_blocks.1.attentions.{i}.transformer_blocks.0.attn1" for i in (0, 1)],
        ),
        ({"block": "down", "module": ["sampler|ff", "attn2"], "index": -1}, ["down_blocks.0.downsamplers.0"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_selection_means_these_modules_in_the_order_of_computation(
    latents: Backbone, selection: dict[str, Any], wanted: list[str]
) -> None:
    assert names(latents, selection) == wanted


def test_where_there_is_no_first_choice_the_second_is_taken(pixels: Backbone) -> None:
    assert names(pixels, {"block": "up", "module": "attn1|attention"}, size=16) == [
        "up_blocks.0.attentions.0",
        "up_blocks.0.attentions.1",
    ]


@pytest.mark.usefixtures("listed_once")
def test_names_and_selections_mix_and_a_tap_that_two_of_them_mean_comes_once(latents: Backbone) -> None:
    middle, last = "mid_block", "up_blocks.1.resnets.1.conv2"
    assert names(latents, last, {"block": "mid", "module": "block"}, "conv_in") == ["conv_in", middle, last]
    convolutions = names(latents, {"block": "up", "module": "conv2"})
    assert names(latents, {"block": "up", "module": "conv2"}, {"module": "conv2", "index": -1}) == convolutions
    assert names(latents, last, {"block": "up", "module": "conv2"}) == convolutions


def test_a_name_after_a_selection_that_means_it_too_comes_once(latents: Backbone) -> None:
    assert names(latents, {"block": "mid", "module": "resnet"}, "mid_block.resnets.1") == [
        "mid_block.resnets.0",
        "mid_block.resnets.1",
    ]


def test_an_index_that_means_one_tap_twice_is_refused_by_its_name(latents: Backbone) -> None:
    for index in ([1, 1], [1, -1]):
        said = complaint(latents, [{"block": "mid", "module": "resnet", "index": index}])
        assert "'mid_block.resnets.1' is asked for twice" in said


@pytest.mark.usefixtures("listed_once")
@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("satdiffuser", ["no preset of taps 'satdiffuser'", "did you mean satdifuser?"]),
        ([], ["encoder.taps is empty", "satdifuser"]),
        (["up_blocks.0.resnet.1"], ["no tap 'up_blocks.0.resnet.1'", "did you mean", "up_blocks.0.resnets.1"]),
        ([{"module": "conv3"}], ["no module 'conv3'", "attn1", "did you mean conv"]),
        ([{"module": ["conv2", "attn1|atention"]}], ["no module 'atention'", "did you mean attention"]),
        ([{"block": "upp", "module": "conv2"}], ["no block 'upp'", "down, mid, up", "did you mean up"]),
        ([{"block": "up_blocks.2", "module": "conv2"}], ["no block 'up_blocks.2'", "did you mean", "up_blocks.1"]),
        ([{"block": "up", "module": "conv2", "index": 4}], ["index 4", "is outside", "4 modules"]),
        ([{"block": "up", "module": "conv2", "index": [0, -5]}], ["index -5", "is outside", "4 modules"]),
        ([{"block": "up_blocks.0", "module": "attn1"}], ["matches nothing", "satdifuser taps"]),
        ([{"module": "conv2", "idx": 0}], ["'idx'", "block, module and index"]),
        ([{"block": "up"}], ["'block': 'up'", "block, module and index"]),
    ],
    ids=str,
)
def test_what_is_not_there_is_one_line_with_near_names(latents: Backbone, wanted: Any, words: list[str]) -> None:
    said = complaint(latents, wanted)
    for word in words:
        assert word in said


@pytest.mark.usefixtures("listed_once")
@pytest.mark.parametrize(
    "wanted",
    [
        [5],
        [None],
        5,
        [{"module": None}],
        [{"module": 2}],
        [{"module": "conv2", "block": 1}],
        [{"module": "conv2", "index": "first"}],
        [{"module": "conv2", "index": 1.5}],
    ],
    ids=str,
)
def test_what_is_no_word_where_a_word_is_expected_is_one_line_too(latents: Backbone, wanted: Any) -> None:
    assert "taps" in complaint(latents, wanted)


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_what_is_listed_is_every_map_of_the_known_kinds_as_the_network_computes_them(
    request: pytest.FixtureRequest, tiny_folder: Path, latent_folder: Path, kind: str
) -> None:
    backbone: Backbone = request.getfixturevalue(kind)
    if kind == "pixels":
        network = unconditional(str(tiny_folder)).unet
        found, size = computed(network, torch.randn(1, 3, 16, 16), 61), 16
    else:
        network = stable_diffusion(str(latent_folder)).unet
        prompt = torch.randn(1, 9, 12)
        found, size = computed(network, torch.randn(1, 4, 8, 8), 61, encoder_hidden_states=prompt), 32
    times = Counter(name for name, _ in found)
    wanted = []
    for name, value in found:
        if plain_kind(name) and times[name] == 1:
            channels = value.shape[1] if value.ndim == 4 else value.shape[2]
            side = value.shape[3] if value.ndim == 4 else round(value.shape[1] ** 0.5)
            wanted.append((name, plain_kind(name), channels, size // side))
    listed = list_taps(backbone, size)
    assert [(tap.name, kind_of(tap.name), tap.channels, tap.stride) for tap in listed] == wanted
    assert len({kind for _, kind, _, _ in wanted}) == (10 if kind == "pixels" else 14)
    depths = [tap.depth for tap in listed]
    assert depths == sorted(set(depths))


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_every_tap_that_is_listed_is_accepted_with_the_channels_and_stride_listed(
    request: pytest.FixtureRequest, kind: str, every: bool
) -> None:
    backbone: Backbone = request.getfixturevalue(kind)
    listed = list_taps(backbone, 32, every=every)
    shuffled = sorted(listed, key=lambda tap: tap.name[::-1])
    chosen = choose_taps(backbone, [tap.name for tap in shuffled], 32)
    assert [(t.name, t.channels, t.stride) for t in chosen] == [(t.name, t.channels, t.stride) for t in listed]
    if every:
        few = {tap.name for tap in list_taps(backbone, 32)}
        assert few < {tap.name for tap in listed}
        assert all(kind_of(tap.name) == "" for tap in listed if tap.name not in few)


def test_every_tap_that_is_listed_is_read_as_a_plain_hook_reads_it(tiny_folder: Path, pixels: Backbone) -> None:
    listed = list_taps(pixels, 16, every=True)
    encoder = DiffusionEncoder(
        unconditional(str(tiny_folder)),
        prepare=ImageInput(RGB),
        taps=[tap.name for tap in listed],
        timesteps=[161],
        image_size=16,
    )
    given: list[Any] = []
    hook = encoder.network.unet.register_forward_pre_hook(lambda _module, inputs: given.append(inputs))
    bank = encoder(torch.rand(2, 13, 16, 16) * 0.3, sample_ids=["a", "b"])
    hook.remove()
    wanted = dict(computed(unconditional(str(tiny_folder)).unet, *given[0]))
    for tap in listed:
        value = wanted[tap.name]
        if value.ndim == 3:  # tokens, row by row
            side = round(value.shape[1] ** 0.5)
            value = torch.stack([value[:, token] for token in range(side**2)], -1).reshape(2, -1, side, side)
        assert value.shape == (2, tap.channels, 16 // tap.stride, 16 // tap.stride), tap.name
        torch.testing.assert_close(bank.map(tap.name, 161), value, atol=1e-6, rtol=0, msg=lambda m, t=tap: f"{t}: {m}")


def test_channels_are_not_taken_for_tokens(pixels: Backbone) -> None:
    """The norm in diffusers' attention reads `[batch, channels, tokens]`: 16 channels there are no map of 4 x 4."""
    assert [tap.name for tap in list_taps(pixels, 16, every=True) if tap.name.endswith("group_norm")] == []
    assert "mid_block.attentions.0.group_norm" in complaint(pixels, ["mid_block.attentions.0.group_norm"])


def test_the_order_of_a_list_does_not_matter_and_strides_are_those_of_the_image(latents: Backbone) -> None:
    first = choose_taps(latents, ["conv_out", "mid_block", "conv_in"], 64)
    assert first == choose_taps(latents, ["conv_in", "conv_out", "mid_block"], 64)
    assert [(tap.name, tap.depth, tap.channels, tap.stride) for tap in first] == [
        ("conv_in", 0, 8, 4),
        ("mid_block", 1, 16, 8),
        ("conv_out", 2, 4, 4),
    ]


def test_choosing_and_listing_leave_the_backbone_as_it_was(tiny_folder: Path) -> None:
    backbone = unconditional(str(tiny_folder))
    before = {name: value.clone() for name, value in backbone.unet.state_dict().items()}
    choose_taps(backbone, "satdifuser", 16)
    list_taps(backbone, 16, every=True)
    after = backbone.unet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(module._forward_hooks for module in backbone.unet.modules())


def test_kinds_are_told_by_how_a_name_ends_alone(latents: Backbone, pixels: Backbone) -> None:
    for backbone in (latents, pixels):
        every = [name for name, _ in backbone.unet.named_modules() if name]
        assert {name: kind_of(name) for name in every} == {name: plain_kind(name) for name in every}
    assert not any(re.search("time|norm$|act", kind_of(name)) for name in every)
