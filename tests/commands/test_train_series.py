"""Series of images from extraction to evaluation: live as stored, step by step, and what does not fit is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from satdifuser.cli import main
from satdifuser.commands import eval as evaluation
from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore

SHORT = ["trainer.max_steps=2", "trainer.batch_size=4", "trainer.eval_every=1"]
VIT = ["encoder=small_vit"]
DIFFUSION = ["encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21]"]
ATTENTION = ["temporal=attention", "temporal.heads=4"]
Words = list[str]


@pytest.fixture
def stored(tmp_path: Path, tiny_data: Words) -> Callable[..., str]:
    def run(*words: str, path: str = "f.zarr") -> str:
        common = [*tiny_data, "data.dates=3", f"store.path={tmp_path / path}", "store.dtype=float32"]
        return extract.run(compose("extract", [*common, *words]))

    return run


@pytest.fixture
def trained(tmp_path: Path, tiny: Words) -> Callable[..., dict[str, dict[str, float]]]:
    def run(name: str, *words: str) -> dict[str, dict[str, float]]:
        common = [*tiny, *SHORT, "data.dates=3", f"run={tmp_path / name}"]
        return train.run(compose("train", [*common, *words]), quiet=True)

    return run


def same(tmp_path: Path, one: str, other: str) -> None:
    first, second = RunFolder(tmp_path / one).rows(), RunFolder(tmp_path / other).rows()
    for a, b in zip(first, second, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("head", [["temporal=mean"], ["temporal=max"], ATTENTION], ids=lambda words: words[0])
def test_live_and_stored_series_train_alike(
    tmp_path: Path, stored: Callable[..., str], trained: Callable[..., dict[str, dict[str, float]]], head: Words
) -> None:
    path = stored(*VIT)
    live = trained("live", *VIT, *head)
    read = trained("stored", *VIT, *head, f"features={path}")
    same(tmp_path, "live", "stored")
    assert read["test"] == pytest.approx(live["test"], rel=1e-4)
    again = evaluation.run(compose("eval", [f"run={tmp_path / 'stored'}"]))
    assert again["test"] == pytest.approx(read["test"], rel=1e-6)
    assert f"features: {path}" in (tmp_path / "stored" / "config.yaml").read_text()
    spec = RunFolder(tmp_path / "live").spec()
    assert spec.dates is None
    assert str(dict(spec.settings)["temporal"]).startswith(head[0].removeprefix("temporal="))


@pytest.mark.slow
def test_the_difference_of_two_dates_trains_alike_live_and_stored(
    tmp_path: Path, stored: Callable[..., str], trained: Callable[..., dict[str, dict[str, float]]]
) -> None:
    words = [*VIT, "data.dates=2"]
    path = stored(*words)
    for name, absolute in (("signed", "false"), ("size", "true")):
        head = ["temporal=difference", f"temporal.absolute={absolute}"]
        trained(f"live-{name}", *words, *head)
        trained(f"stored-{name}", *words, *head, f"features={path}")
        same(tmp_path, f"live-{name}", f"stored-{name}")
    assert RunFolder(tmp_path / "live-size").rows()[0]["loss"] != RunFolder(tmp_path / "live-signed").rows()[0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["mean", "max", "grid2"])
def test_pooled_series_train_alike_live_and_stored(
    tmp_path: Path, stored: Callable[..., str], trained: Callable[..., dict[str, dict[str, float]]], keep: str
) -> None:
    """The maximum over dates of a mean over pixels is not the mean of the maximum: both pool each date first."""
    path = stored(*VIT, f"store.keep={keep}")
    common = [*VIT, "temporal=max", "task=classification"]
    trained("live", *common, f"pool={keep}")
    trained("stored", *common, f"features={path}")
    same(tmp_path, "live", "stored")


@pytest.mark.slow
def test_latents_of_series_train_as_their_images_do(
    tmp_path: Path, stored: Callable[..., str], trained: Callable[..., dict[str, dict[str, float]]]
) -> None:
    path = stored(*DIFFUSION, "store.keep=latents")
    assert FeatureStore(path).spec.dates == 3
    trained("live", *DIFFUSION, *ATTENTION)
    trained("stored", *DIFFUSION, *ATTENTION, f"features={path}")
    same(tmp_path, "live", "stored")


@pytest.mark.slow
def test_a_trained_encoder_reads_series_and_a_run_of_attention_is_resumed_bit_for_bit(
    tmp_path: Path, trained: Callable[..., dict[str, dict[str, float]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["encoder=unet", "encoder.width=8", *ATTENTION, "temporal.heads=2", "trainer.max_steps=4"]
    words += ["augmentation=segmentation"]
    whole = trained("whole", *words)
    trained("cut", *words, "trainer.accumulate=2")

    def killed(loss: float, step: int, remedy: str) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("satdifuser.engine.trainer.check_loss", killed)
        with pytest.raises(KeyboardInterrupt):
            trained("part", *words)
    for other in (["temporal.days=year"], ["temporal.heads=4"]):
        with pytest.raises(UserError, match="was begun with another temporal"):
            trained("part", *words, *other, "resume=true")
    with pytest.raises(UserError, match="was begun with another temporal"):
        trained("part", *words[:2], *words[5:], "temporal=mean", "resume=true")
    again = trained("part", *words, "resume=true")
    assert RunFolder(tmp_path / "part").rows() == RunFolder(tmp_path / "whole").rows()
    assert again["test"] == whole["test"]
    for one, other in zip(RunFolder(tmp_path / "whole").rows(), RunFolder(tmp_path / "cut").rows(), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)


@pytest.mark.slow
def test_attentions_weights_are_in_the_checkpoint_and_are_trained(
    tmp_path: Path, trained: Callable[..., dict[str, dict[str, float]]]
) -> None:
    from satdifuser.engine.checkpoint import load_checkpoint

    trained("run", *VIT, *ATTENTION)
    names = [name for name in load_checkpoint(RunFolder(tmp_path / "run").best)[1] if name.startswith("temporal.")]
    assert sorted(name.rpartition(".")[2] for name in names) == ["key", "query"]
    with pytest.raises(UserError, match=r"init=.*was trained on other features.*temporal: 'attention"):
        trained("next", *VIT, "temporal=mean", f"init={tmp_path / 'run'}")
    trained("next", *VIT, *ATTENTION, f"init={tmp_path / 'run'}")


def refused(words: Words, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends in."""
    assert main(words) == 2
    found = capsys.readouterr().err.strip().splitlines()
    assert len(found) == 1, found
    return found[0]


@pytest.mark.slow
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, tiny: Words, stored: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["train", *tiny, *SHORT, *VIT, f"run={tmp_path / 'run'}"]
    line = refused([*common, "data.dates=3"], capsys)
    assert "samples of synthetic have 3 dates: say what makes one of them, as temporal=mean, max, attention" in line
    assert "or difference" in refused([*common, "data.dates=2"], capsys)
    line = refused([*common, "temporal=mean"], capsys)
    assert "TemporalMean makes one of several dates, and samples of synthetic have one image: set temporal=none" in line
    line = refused([*common, "temporal=difference", "data.dates=3"], capsys)
    assert "temporal=difference is of two dates, and these samples have 3" in line
    line = refused([*common, "data.dates=3", "temporal=attention", "temporal.heads=7"], capsys)
    assert re.search(r"temporal.heads is 7, .*it can be 1, 2, 4, 8", line)
    line = refused([*common, "data.dates=3", "temporal=attention", "temporal.days=month"], capsys)
    assert "temporal.days is 'month': it can be first or year" in line
    line = refused([*common, "temporal=attenton"], capsys)
    assert "no temporal=attenton: there is attention, difference, max, mean, none; did you mean attention" in line
    path = stored(*VIT)
    capsys.readouterr()
    line = refused([*common, f"features={path}"], capsys)
    assert "samples of store have 3 dates" in line
    assert not (tmp_path / "run").exists()


def test_a_store_of_series_is_reused_only_for_the_same_dates(
    tmp_path: Path, stored: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored(*VIT)
    assert stored(*VIT, "store.reuse=true") == path
    with pytest.raises(UserError, match="holds other data for train"):
        stored(*VIT, "store.reuse=true", "data.dates=2")
    assert main(["store", "info", path]) == 0
    told = capsys.readouterr().out
    assert "dates" in told
    store = FeatureStore(path)
    assert np.asarray(store.column("dates")).shape == (20, 3)
    assert store.spec.shape(store.spec.taps[0])[0] == 3


def test_a_dry_run_counts_all_dates(
    tmp_path: Path, tiny_data: Words, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satdifuser.store.disk.sustained_write.__defaults__", (2**24, 0.1))
    sizes = []
    for dates in ("1", "4"):
        words = [*tiny_data, *VIT, f"data.dates={dates}", f"store.path={tmp_path / 'f.zarr'}", "dry_run=true"]
        assert main(["extract", *words]) == 0
        sizes.append(float(re.search(r"float16 +\D* ([\d.]+) kB", capsys.readouterr().out)[1]))  # type: ignore[index]
    assert sizes[1] == pytest.approx(4 * sizes[0], rel=0.02)


@pytest.mark.slow
def test_a_grid_has_a_way_through_time_for_each_model(tmp_path: Path, tiny: Words) -> None:
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    models = {
        "ViT mean": "[encoder=small_vit, temporal=mean]",
        "ViT attention": "[encoder=small_vit, temporal=attention, temporal.heads=4]",
        "U-Net": "[encoder=unet, encoder.width=8, temporal=max]",
    }
    text = "# @package _global_\nmodels:\n" + "".join(f"  {name}: {words}\n" for name, words in models.items())
    text += "tasks:\n  cover: [task=segmentation]\nseeds: [0]\n"
    (tmp_path / "configs" / "experiment" / "series.yaml").write_text(text)
    common = [w for w in [*tiny, *SHORT, "data.dates=3"] if not w.startswith("run=")]
    out = tmp_path / "grid"
    words = ["compare", "--config-dir", str(tmp_path / "configs"), "experiment=series", f"output={out}", *common]
    assert main([*words, "dry_run=true"]) == 0
    assert main(words) == 0
    page = (out / "report.html").read_text() if (out / "report.html").is_file() else (out / "index.html").read_text()
    assert all(name in page for name in models)
    stores = list((out / "features").glob("*.zarr"))
    assert len(stores) == 1  # both ViTs read one
    assert FeatureStore(stores[0]).spec.dates == 3
