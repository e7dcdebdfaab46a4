"""What can be compared with what, what a side is read at, and one line for what cannot be."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.cli import main
from satdifuser.commands.cka import show
from satdifuser.data.inputs import RGB, ImageInput
from satdifuser.diffusion.encoder import DiffusionEncoder
from satdifuser.diffusion.loading import unconditional
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.report.depth.content import Likeness, Place
from satdifuser.study.cka.sides import asked_of, of_run
from satdifuser.study.cka.streaming import even_batches
from tests.study.cka.conftest import UNET, VIT

Compare = Callable[..., Likeness]
Run = Callable[..., str]
COLOURS, RCF = ["encoder=colours"], ["encoder=rcf", "encoder.features=8"]


def test_a_list_of_overrides_comes_from_a_command_line_as_one_text() -> None:
    text = "[encoder=vit, encoder.blocks=[0,1],+encoder.backbone.options={a: 1, b: 2},encoder.prompt='a, b']"
    assert asked_of(text) == [
        *("encoder=vit", "encoder.blocks=[0,1]", "+encoder.backbone.options={a: 1, b: 2}", "encoder.prompt='a, b'"),
    ]
    assert asked_of("runs/latest") == "runs/latest"
    assert asked_of(["encoder=vit"]) == ["encoder=vit"]


@pytest.mark.parametrize("count", range(4, 60))
def test_every_sample_is_in_one_batch_and_no_batch_is_too_small(count: int) -> None:
    for size in (4, 5, 16, 64):
        parts = even_batches(count, size)
        assert [n for part in parts for n in part] == list(range(count))
        assert min(map(len, parts)) >= 4
        assert max(map(len, parts)) <= max(size, 7)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("kinds", ["all", ["conv1", "norm2"], ["attention", "block"]])
def test_a_unet_read_elsewhere_gives_what_it_gave_and_runs_as_far_as_it_did(kinds: Any) -> None:
    encoder = DiffusionEncoder(
        unconditional("random", seed=3),
        prepare=ImageInput(RGB),
        taps=["up_blocks.0.resnets.1.conv2", "mid_block"],
        timesteps=[161, 21],
        image_size=16,
    )
    x, ids = torch.rand(2, 13, 16, 16), ["a", "b"]
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    found: dict[str, torch.Tensor] = {}

    def reader(name: str) -> Any:
        def read(_m: Any, _i: Any, output: Any) -> None:
            found[name] = output[0] if isinstance(output, tuple) else output

        return read

    named = [(name, module) for name, module in encoder.network.unet.named_modules() if name]
    hooks = [module.register_forward_hook(reader(name)) for name, module in named]
    with torch.no_grad():
        before = encoder(x, sample_ids=ids)
    for hook in hooks:
        hook.remove()
    assert not any(name.startswith("up_blocks.1") for name in found)  # it stops after the last tap
    there = encoder.kinds
    assert {"conv1", "conv2", "norm1", "norm2", "resnet", "attention", "block"} <= set(there)
    encoder.read_at(kinds)
    with torch.no_grad():
        after = encoder(x, sample_ids=ids)
    assert encoder.spec.timesteps == (161, 21)
    for tap, value in after.items():
        rows = slice(0, 2) if tap.timestep == 161 else slice(2, 4)
        torch.testing.assert_close(value, found[tap.name][rows])
    if kinds == "all":
        for tap, value in before.items():
            assert torch.equal(after.map(tap.name, tap.timestep), value)
    assert all(torch.equal(encoder.state_dict()[name], value) for name, value in state.items())
    with pytest.raises(UserError, match=r"has no attn7 up to its last tap: it has .*conv1"):
        encoder.read_at(["attn7"])


@pytest.mark.slow
def test_the_weights_of_a_run_are_loaded_whole_and_are_those_of_its_checkpoint(trained: Run, tmp_path: Path) -> None:
    run = trained("run", *UNET, "adapter=lora")
    data = RunFolder(run).settings().data
    side = of_run(run, data, "all")
    assert side.encoder is not None
    state = {n: v for n, v in load_checkpoint(RunFolder(run).best)[1].items() if n.startswith("encoder.")}
    assert state
    own = side.encoder.state_dict()
    for name, value in state.items():
        assert torch.equal(own[name.removeprefix("encoder.")].cpu(), value)
    assert side.weights
    config = RunFolder(run).config
    config.write_text(config.read_text().replace("r: 16", "r: 8"))
    with pytest.raises(UserError, match=r"is of another encoder than its settings make: \d+ weights do not match"):
        of_run(run, data, "taps")


@pytest.mark.slow
def test_a_run_that_began_with_another_has_that_for_its_origin(trained: Run, compared: Compare, tmp_path: Path) -> None:
    first = trained("first", *VIT, "adapter=full")
    then = trained("then", *VIT, "adapter=full", f"init={first}", "trainer.lr=1e-12", "trainer.min_lr=1e-12")
    found = compared(then)
    np.testing.assert_allclose(np.diag(found.values), 1, atol=1e-5)
    assert np.diag(compared(first).values).min() < 0.9999
    assert found.second == "then before training"
    (Path(first) / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(UserError, match=r"began with .*first, which is gone: say with second="):
        compared(then)


@pytest.mark.slow
def test_two_runs_of_other_data_and_stores_of_other_images_are_refused(
    trained: Run, stored: Run, compared: Compare
) -> None:
    one = trained("one", *VIT)
    other = trained("other", *VIT, "data.seed=7")
    with pytest.raises(UserError, match=r"other is of other data than the first side \(test has other"):
        compared(one, other)
    store = stored("store.zarr", *COLOURS, "data.splits.test.length=20")
    with pytest.raises(UserError, match=r"the images and store are of different images \(21 and 20, such as"):
        compared(one, store)
    assert compared(one, COLOURS).second == "colour-statistics"
    latest = compared(trained("same", *VIT), one)
    assert latest.same


@pytest.mark.parametrize(
    ("first", "second", "words", "message"),
    [
        ("nothing", None, [], r"nothing is neither the folder of a run nor a store: give one, or overrides as"),
        ("encoder=small", None, [], r"neither the folder of a run nor a store: overrides are a list, as \[encoder="),
        (COLOURS, None, [], r"only a run has an origin, so say what to compare first with, as second="),
        (COLOURS, ["data=synthetic"], [], r"data=synthetic is not about an encoder"),
        (
            COLOURS,
            RCF,
            ["cka.modules=all"],
            r"gives its taps alone, nothing inside of its blocks: set cka.modules=taps",
        ),
        (VIT, VIT, ["cka.modules=[conv1]"], r"vit_tiny_patch16_224 has no conv1: it has norm1, qkv, attention, norm2"),
        (VIT, UNET, ["cka.modules=[qkv, conv1, fc9]"], r"cka.modules: no side has fc9: there is conv1, qkv"),
        (COLOURS, RCF, ["split=best"], r"data has no split 'best'"),
        (COLOURS, RCF, ["cka.pool=grid99x"], r"cka.pool is 'grid99x'"),
        (COLOURS, RCF, ["data.splits.test.length=3"], r"3 samples: unbiased CKA needs at least 4"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    first: Any, second: Any, words: list[str], message: str, compared: Compare
) -> None:
    with pytest.raises(UserError, match=message):
        compared(first, second, *words)


def test_stored_features_that_are_pooled_are_compared_as_they_are(stored: Run, compared: Compare) -> None:
    store = stored("pooled.zarr", *RCF, "store.keep=mean")
    found, live = compared(store, COLOURS), compared(RCF, COLOURS)
    np.testing.assert_allclose(found.values, live.values, atol=1e-5)
    for pool in ("flat", "grid2"):
        with pytest.raises(
            UserError, match=rf"^cka\.pool={pool} needs maps, .*store\.keep=mean.*: set cka\.pool=mean,"
        ):
            compared(store, COLOURS, f"cka.pool={pool}")
    other = compared(store, store)
    np.testing.assert_allclose(other.values, 1, atol=1e-9)


def test_whole_maps_that_do_not_fit_are_refused_before_any_work(
    compared: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satdifuser.study.cka.flow._free", lambda device: 1000)
    with pytest.raises(UserError, match=r"keeps the maps of 256 samples, .* are free: set cka.batch=4"):
        compared(RCF, COLOURS, "cka.pool=flat")


def test_a_store_of_latents_is_no_side(stored: Run, compared: Compare) -> None:
    store = stored("latents.zarr", *UNET, "store.keep=latents")
    with pytest.raises(UserError, match=r"holds latents: give the overrides of the encoder"):
        compared(store, COLOURS)


def test_the_command_prints_what_moved_or_what_is_most_like(
    compared: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    show(compared(COLOURS, RCF))
    text = capsys.readouterr().out
    assert "is most like" in text
    assert "rcf" in text
    found = compared(VIT, [*VIT, "seed=4"], "cka.modules=[qkv,block]", "cka.batch=8")
    assert found.same
    show(found)
    text = capsys.readouterr().out
    for word in ("what moved, by kind", "qkv", "by part", "blocks.1", "the places that moved most", "rank before"):
        assert word in text
    means = {kind: np.diag(found.values)[[p.kind == kind for p in found.rows]].mean() for kind in ("qkv", "block")}
    assert all(f"{value:.4f}" in text for value in means.values())


@pytest.mark.parametrize(
    "words",
    [
        ["cka", "first=[encoder=small,encoder.timesteps=[21]]", "second=runs/a b", "cka.samples=64", "output=o"],
        ["probe", "encoder=small_vit", "encoder.class_token=true", "probe.views=[mean,class]", "output=o"],
    ],
)
def test_a_page_repeats_every_word_of_its_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(f"satdifuser.commands.{words[0]}.run", lambda settings, command: told.append(command))
    assert main(words) == 0
    assert shlex.split(told[0]) == ["satdifuser", *words]


def test_two_sides_that_are_the_same_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng()
    places = tuple(Place(f"blocks.{n}", None, n, 8, 4) for n in range(3))
    values = rng.uniform(0.1, 0.9, (3, 3))
    np.fill_diagonal(values, 1 - 1e-9)
    both = Likeness("a", "b", places, places, values, np.full((3, 3), np.nan), 9, 9, "mean", "test", True)
    show(both)
    assert "nothing moved" in capsys.readouterr().out
    values[1, 1] = 0.99
    show(both)
    assert "nothing moved" not in capsys.readouterr().out
