"""Training from latents, from pooled features and from a place afar; what does not fit is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from satdifuser.cli import main
from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError

pytestmark = pytest.mark.slow

SHORT = ["trainer.max_steps=2", "trainer.batch_size=2", "trainer.eval_every=2"]
ENCODER = ["encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21, 161]"]
Run = Callable[..., dict[str, dict[str, float]]]


@pytest.fixture
def stored(tmp_path: Path, tiny_data: list[str]) -> Callable[..., str]:
    """Extract to a store and give its path."""

    def run(*words: str, path: str = "f.zarr") -> str:
        path = path if "://" in path else str(tmp_path / path)
        common = [*tiny_data, *ENCODER, f"store.path={path}", "store.dtype=float32"]
        return extract.run(compose("extract", [*common, *words]))

    return run


@pytest.fixture
def trained(tmp_path: Path, tiny: list[str]) -> Run:
    """Train as `tmp_path/<name>` and give the result."""

    def run(name: str, *words: str) -> dict[str, dict[str, float]]:
        return train.run(compose("train", [*tiny, *SHORT, *ENCODER, f"run={tmp_path / name}", *words]), quiet=True)

    return run


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://satdifuser-train"
    system = fsspec.filesystem("memory")
    if system.exists("/satdifuser-train"):
        system.rm("/satdifuser-train", recursive=True)


def same(tmp_path: Path, one: str, other: str) -> None:
    """Two runs went the same way, step by step."""
    first, second = RunFolder(tmp_path / one).rows(), RunFolder(tmp_path / other).rows()
    for a, b in zip(first, second, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


def said_in_one_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main([*words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_training_from_latents_gives_the_result_of_the_images(
    tmp_path: Path, stored: Callable[..., str], trained: Run
) -> None:
    path = stored("store.keep=latents")
    live, late = trained("live"), trained("late", f"features={path}")
    same(tmp_path, "live", "late")
    assert live["test"] == pytest.approx(late["test"], rel=1e-4, abs=1e-6)


def test_latents_serve_other_taps_and_timesteps_too(tmp_path: Path, stored: Callable[..., str], trained: Run) -> None:
    path, words = stored("store.keep=latents"), ["encoder.taps=[mid_block]", "encoder.timesteps=[61]", "fusion=mean"]
    trained("live", *words)
    trained("late", *words, f"features={path}")
    same(tmp_path, "live", "late")


def test_eval_of_a_run_on_latents_finds_its_scores_again_from_latents_and_from_features(
    tmp_path: Path, stored: Callable[..., str], trained: Run
) -> None:
    latents, maps = stored("store.keep=latents"), stored(path="maps.zarr")
    result = trained("run", f"features={latents}")
    for words in ([], [f"features={maps}"]):
        assert main(["eval", f"run={tmp_path / 'run'}", *words]) == 0
        found = json.loads((tmp_path / "run" / "eval-test.json").read_text())
        assert found["test"] == pytest.approx(result["test"], rel=1e-4, abs=1e-6)
        assert found["samples"] == 7


def test_latents_of_another_encoder_are_refused_with_what_differs(
    tmp_path: Path, stored: Callable[..., str], tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored("store.keep=latents")
    for setting, says in (
        ("encoder.prepare.high=0.4", r"0\.3.*0\.4"),
        ("encoder.prepare.bands=[B08, B04, B03]", r"bands.*B02.*B08"),
        ("encoder.backbone.weights=random", r"weights: '.*' and '.*'"),
        ("encoder.image_size=32", r"image_size: \(16, 16\) and \(32, 32\)"),
    ):
        run = [f"run={tmp_path / 'run'}", f"features={path}"]
        said = said_in_one_line(capsys, "train", *tiny, *ENCODER, *run, setting)
        assert f"{path} holds other features than asked for (store and asked)" in said
        assert re.search(says, said)
        assert not list(tmp_path.glob("run/*.safetensors"))


def test_latents_without_an_encoder_that_makes_them_are_refused(
    tmp_path: Path, stored: Callable[..., str], tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored("store.keep=latents")
    words = ["encoder=unet", "encoder.width=8", "fusion=mean", f"features={path}", f"run={tmp_path / 'run'}"]
    assert f"{path} holds latents" in said_in_one_line(capsys, "train", *tiny, *words)


def test_eval_refuses_a_store_of_other_features_with_what_differs(
    tmp_path: Path, stored: Callable[..., str], trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    trained("run", f"features={stored()}")
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    for words, says in (
        (["encoder.seed=1"], r"seed: 0 and 1"),
        (["encoder.timesteps=[21, 61]"], r"mid_block@161|timestep"),
        (["store.keep=mean"], r"pooled"),
    ):
        other = stored("store.splits=[test]", *words, path=f"{words[0].partition('=')[0]}.zarr")
        said = said_in_one_line(capsys, "eval", f"run={tmp_path / 'run'}", f"features={other}")
        assert "was trained on other features than these (trained on and given)" in said
        assert re.search(says, said), said
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_eval_takes_a_store_of_the_same_features_in_another_precision(
    tmp_path: Path, stored: Callable[..., str], trained: Run
) -> None:
    result = trained("run")
    half = stored("store.dtype=float16", path="half.zarr")
    assert main(["eval", f"run={tmp_path / 'run'}", f"features={half}"]) == 0
    found = json.loads((tmp_path / "run" / "eval-test.json").read_text())
    assert found["test"]["loss"] == pytest.approx(result["test"]["loss"], rel=0.01)


def test_a_run_on_some_taps_of_a_store_is_scored_on_these(
    tmp_path: Path, stored: Callable[..., str], trained: Run
) -> None:
    path = stored()
    result = trained("run", f"features={path}", "select.timesteps=[161]")
    assert main(["eval", f"run={tmp_path / 'run'}"]) == 0
    found = json.loads((tmp_path / "run" / "eval-test.json").read_text())
    assert found["test"] == pytest.approx(result["test"], rel=1e-5, abs=1e-7)
    small = str(tmp_path / "small.zarr")
    assert main(["store", "prune", path, small, "timesteps=161"]) == 0
    assert main(["eval", f"run={tmp_path / 'run'}", f"features={small}"]) == 0
    again = json.loads((tmp_path / "run" / "eval-test.json").read_text())
    assert again == {**found, "features": small}


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_means_of_maps_train_what_needs_no_map(
    tmp_path: Path, stored: Callable[..., str], trained: Run, task: str
) -> None:
    path = stored("store.keep=mean")
    result = trained("run", f"features={path}", f"task={task}")
    assert result["samples"] == 7
    assert main(["eval", f"run={tmp_path / 'run'}"]) == 0
    found = json.loads((tmp_path / "run" / "eval-test.json").read_text())
    assert found["test"] == pytest.approx(result["test"], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", ["moments", "grid2"])
def test_a_head_learns_the_same_from_live_pooled_and_stored_features(
    tmp_path: Path, stored: Callable[..., str], trained: Run, name: str
) -> None:
    path, words = stored(f"store.keep={name}"), ["task=classification", "trainer.max_steps=4"]
    live = trained("live", *words, f"pool={name}")
    late = trained("late", *words, f"features={path}")
    both = trained("both", *words, f"features={path}", f"pool={name}")
    assert both["test"] == late["test"]
    assert live["test"] == pytest.approx(late["test"], rel=1e-4, abs=1e-6)
    same(tmp_path, "live", "late")
    assert main(["eval", f"run={tmp_path / 'live'}"]) == 0
    again = json.loads((tmp_path / "live" / "eval-test.json").read_text())
    assert again["test"] == pytest.approx(live["test"], rel=1e-6)


def test_stored_maps_are_pooled_too(stored: Callable[..., str], trained: Run) -> None:
    words = ["task=classification", "pool=moments"]
    late, live = trained("late", *words, f"features={stored()}"), trained("live", *words)
    assert late["test"] == pytest.approx(live["test"], rel=1e-4, abs=1e-6)


def test_a_store_afar_trains_and_scores_as_one_on_disk(
    tmp_path: Path, stored: Callable[..., str], trained: Run, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, url = stored(), stored(path=f"{memory}/f.zarr")
    assert not (tmp_path / "f.zarr.partial").exists()
    result = trained("near", f"features={path}")
    trained("far", f"features={url}")
    same(tmp_path, "near", "far")
    for place in (url, f"file://{path}"):
        assert main(["eval", f"run={tmp_path / 'near'}", f"features={place}"]) == 0
        found = json.loads((tmp_path / "near" / "eval-test.json").read_text())
        assert found["test"] == pytest.approx(result["test"], rel=1e-5, abs=1e-7)
    with pytest.raises(UserError, match="already exists"):
        stored(path=url)
    assert stored("store.reuse=true", path=url) == url


def test_a_store_afar_that_is_not_there_is_one_line(
    tmp_path: Path, tiny: list[str], memory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for url, says in ((f"{memory}/nowhere", "no feature store at memory://"), ("abc://x/y", "abc://x/y cannot be")):
        said = said_in_one_line(capsys, "train", *tiny, f"features={url}", f"run={tmp_path / 'run'}")
        assert says in said
