"""A run that begins with another one: the same weights, the same answers, and nothing that it may not know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError

pytestmark = pytest.mark.slow

Run = Callable[..., dict[str, Any]]
VIT = ["encoder=small_vit", "encoder.blocks=last", "task=classification", "fusion.norm=batch"]
STILL = ["trainer.lr=1e-12", "trainer.min_lr=1e-12", "fusion.norm=group"]  # BatchNorm moves without a rate


@pytest.fixture
def trained(tmp_path: Path, tiny: list[str]) -> Run:
    def run(name: str, *words: str) -> dict[str, Any]:
        return train.run(compose("train", [*tiny, *VIT, f"run={tmp_path / name}", *words]), quiet=True)

    return run


def best(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(RunFolder(path).best)[1]


@pytest.mark.parametrize("adapter", ["lora", "full", "bitfit"])
def test_an_adapted_encoder_begins_with_the_answers_of_the_frozen_ones_head(
    tmp_path: Path, trained: Run, adapter: str
) -> None:
    first = trained("first", "fusion.norm=group")
    then = trained("then", f"init={tmp_path / 'first'}", f"adapter={adapter}", *STILL)
    assert then["test"] == pytest.approx(first["test"], rel=1e-4, abs=1e-6)
    assert then["encoder_parameters"]["trainable"] > 0
    head = {name for name in best(tmp_path / "first") if name.startswith(("fusion.", "decoder."))}
    assert head
    for name in head:
        torch.testing.assert_close(best(tmp_path / "then")[name], best(tmp_path / "first")[name])


def test_an_adapter_is_begun_with_too_and_so_are_running_means(tmp_path: Path, trained: Run) -> None:
    trained("first", "adapter=lora", "trainer.lr=0.05")
    trained("then", "adapter=lora", f"init={tmp_path / 'first'}", "trainer.max_steps=1", *STILL[:2])
    one, other = best(tmp_path / "first"), best(tmp_path / "then")
    assert one.keys() == other.keys()
    moved = [name for name in one if "encoder." in name and "lora" in name]
    assert moved
    for name in moved:
        torch.testing.assert_close(other[name], one[name])
    counted = next(name for name in one if name.endswith("num_batches_tracked"))
    assert other[counted] == one[counted] + 1


def test_a_run_that_begins_with_another_and_is_resumed_needs_that_one_no_more(tmp_path: Path, trained: Run) -> None:
    trained("first")
    words = ["adapter=lora", f"init={tmp_path / 'first'}"]
    whole = trained("whole", *words)
    trained("half", *words)
    half = RunFolder(tmp_path / "half")
    half.result.unlink()
    (tmp_path / "first").rename(tmp_path / "gone")
    again = trained("half", *words, "resume=true")
    assert again["test"] == whole["test"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fusion.projection_dim=24"], r"another head, decoder or adapter than this run: \d+ weights do not match"),
        (["fusion=lw"], "another head, decoder or adapter"),
        (["encoder.blocks=all"], r"was trained on other features .* tap blocks"),
        (["encoder.backbone.weights=random"], "was trained on other features .*weights: "),
        (["pool=moments"], "was trained on other features .*pooled"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, trained: Run, words: list[str], says: str
) -> None:
    trained("first")
    with pytest.raises(UserError, match=f"init=.*first.*{says}"):
        trained("then", f"init={tmp_path / 'first'}", *words)
    assert not (tmp_path / "then").exists()


def test_an_adapter_that_this_run_does_not_have_is_not_dropped_silently(tmp_path: Path, trained: Run) -> None:
    trained("first", "adapter=lora")
    with pytest.raises(UserError, match=r"was trained on other features .*adapter: 'lora"):
        trained("then", f"init={tmp_path / 'first'}")


def test_only_a_finished_run_can_be_begun_with(tmp_path: Path, trained: Run) -> None:
    with pytest.raises(UserError, match=r"no run at .*nowhere"):
        trained("then", f"init={tmp_path / 'nowhere'}")
    trained("first")
    (tmp_path / "first" / "result.json").unlink()
    with pytest.raises(UserError, match=r"first is not finished: it has no result.json"):
        trained("then", f"init={tmp_path / 'first'}")


def test_a_head_that_has_seen_more_is_refused(tmp_path: Path, trained: Run) -> None:
    trained("first", "data.splits.train.length=16")
    with pytest.raises(UserError, match=r"has learned from \d+ samples that this run must not know, such as scene-0-"):
        trained("then", f"init={tmp_path / 'first'}", "data.splits.train.length=16", "budget=75")
    assert not (tmp_path / "then").exists()


def test_however_its_samples_were_given(tmp_path: Path, trained: Run, tiny_data: list[str]) -> None:
    """The same samples, read from a store and from images."""
    store = str(tmp_path / "f.zarr")
    words = [*tiny_data, *VIT[:2], "data.splits.train.length=16"]
    extract.run(compose("extract", [*words, f"store.path={store}", "store.dtype=float32"]))
    trained("first", f"features={store}", "data.splits.train.length=3", "data.splits.val.length=3")
    more = ["data.splits.train.length=16", "budget=75", "adapter=lora"]
    with pytest.raises(UserError, match="has learned from 4 samples that this run must not know"):
        trained("then", f"init={tmp_path / 'first'}", *more)
    fewer = trained("fewer", f"features={store}", "budget=75")
    assert fewer["training_samples"] == 12
    assert trained("then", f"init={tmp_path / 'fewer'}", *more)["training_samples"] == 12


def test_what_a_first_run_has_seen_is_not_forgotten_by_the_second(tmp_path: Path, trained: Run) -> None:
    other = ["data.seed=3"]  # other scenes
    trained("first", *other)
    trained("then", f"init={tmp_path / 'first'}")
    seen = set(RunFolder(tmp_path / "then").seen())
    assert seen == {f"scene-{seed}-{number}" for seed in (0, 3) for number in range(8)}
    with pytest.raises(UserError, match="has learned from"):
        trained("third", f"init={tmp_path / 'then'}", *other, "data.splits.train.length=16", "budget=50")


def test_an_adapter_of_other_settings_is_refused(tmp_path: Path, trained: Run) -> None:
    trained("first", "adapter=lora")
    with pytest.raises(UserError, match=r"was trained on other features .*adapter: .*alpha=16.*alpha=32"):
        trained("then", f"init={tmp_path / 'first'}", "adapter=lora", "encoder.adapter.alpha=32")


def test_a_run_without_its_checkpoint_says_what_to_do(tmp_path: Path, trained: Run) -> None:
    trained("first")
    RunFolder(tmp_path / "first").best.unlink()
    with pytest.raises(UserError, match=r"first has lost best.safetensors: remove that folder, and train it again"):
        trained("then", f"init={tmp_path / 'first'}")


def test_an_adapted_encoder_trains_through_pooled_features(tmp_path: Path, trained: Run) -> None:
    result = trained("run", "adapter=lora", "pool=moments")
    assert result["encoder_parameters"]["trainable"] > 0
    assert {tap.channels for tap in RunFolder(tmp_path / "run").spec().taps} == {2 * 256}


def test_a_smaller_budget_may_begin_a_larger_one(tmp_path: Path, trained: Run) -> None:
    trained("first", "budget=50", "data.splits.train.length=16")
    result = trained("then", f"init={tmp_path / 'first'}", "budget=100", "data.splits.train.length=16")
    assert result["training_samples"] == 16
