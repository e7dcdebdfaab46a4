"""extract, train and eval together: from a store or live, the same result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from satdifuser.cli import main
from satdifuser.commands import eval as evaluation
from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError


def rows(path: Path) -> list[dict[str, float]]:
    return RunFolder(path).rows()


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["gw", "lw", "moe"])
def test_training_from_the_store_or_live_gives_the_same_result(
    tmp_path: Path, tiny: list[str], tiny_data: list[str], fusion: str
) -> None:
    store = tmp_path / "f.zarr"
    extract.run(compose("extract", [*tiny_data, f"store.path={store}", "store.dtype=float32", "store.batch_size=3"]))
    common = [*tiny, f"fusion={fusion}"]
    live = train.run(compose("train", [*common, f"run={tmp_path / 'live'}"]), quiet=True)
    stored = train.run(compose("train", [*common, f"run={tmp_path / 'stored'}", f"features={store}"]), quiet=True)
    for one, other in zip(rows(tmp_path / "live"), rows(tmp_path / "stored"), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert live["test"] == pytest.approx(stored["test"], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation", "regression"])
def test_every_task_trains_and_eval_finds_the_same_scores(tmp_path: Path, tiny: list[str], task: str) -> None:
    run = tmp_path / "run"
    result = train.run(compose("train", [*tiny, f"task={task}", f"run={run}"]), quiet=True)
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "result.json", "figures/weights.png"):
        assert (run / name).stat().st_size > 0, name
    again = evaluation.run(compose("eval", [f"run={run}"]))
    assert again["test"] == pytest.approx(result["test"], rel=1e-5)
    assert again["samples"] == 7


def test_a_u_net_from_scratch_takes_the_same_path(tmp_path: Path, tiny: list[str]) -> None:
    overrides = [*tiny, "encoder=unet", "encoder.width=8", "fusion=mean", "decoder=upernet", "decoder.channels=16"]
    result = train.run(compose("train", [*overrides, f"run={tmp_path / 'run'}"]), quiet=True)
    saved = RunFolder(tmp_path / "run").best.stat().st_size / 4
    assert result["trainable_parameters"] <= saved * 1.01  # its encoder is in the checkpoint


def test_an_interrupted_run_goes_on_and_other_settings_are_refused(tmp_path: Path, tiny: list[str]) -> None:
    run = f"run={tmp_path / 'run'}"
    train.run(compose("train", [*tiny, run]), quiet=True)
    with pytest.raises(UserError, match="overwrite=true"):
        train.run(compose("train", [*tiny, run]), quiet=True)
    with pytest.raises(UserError, match="begun with another fusion"):
        train.run(compose("train", [*tiny, run, "resume=true", "fusion=lw"]), quiet=True)
    again = train.run(compose("train", [*tiny, run, "resume=true"]), quiet=True)
    assert again["steps"] == 4


@pytest.mark.slow
def test_a_run_that_another_process_writes_is_left_alone(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    with RunFolder(run).alone():
        assert main(["train", *tiny, f"run={run}", "overwrite=true"]) == 2
        assert list(run.iterdir()) == []
    assert f"another process is writing {run}: wait for it, or use another run=" in capsys.readouterr().err
    for more in ([], ["overwrite=true"], ["resume=true"]):
        assert main(["train", *tiny, f"run={run}", *more]) == 0


def test_a_run_that_fails_before_it_began_leaves_no_folder(tmp_path: Path, tiny: list[str]) -> None:
    assert main(["train", *tiny, f"run={tmp_path / 'run'}", "fusion.projection_dim=4"]) == 2
    assert not (tmp_path / "run").exists()


def test_an_overwritten_run_stays_locked(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.alone():
        folder.open(resume=False, overwrite=False).last.write_bytes(b"1")
        folder.open(resume=False, overwrite=True)
        assert not folder.last.exists()
        with pytest.raises(UserError, match="another process is writing"), RunFolder(tmp_path / "run").alone():
            pass


def test_tensorboard_curves_are_written(tmp_path: Path, tiny: list[str]) -> None:
    train.run(compose("train", [*tiny, f"run={tmp_path / 'run'}", "trainer.tensorboard=true"]), quiet=True)
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


@pytest.mark.slow
def test_bf16_training_runs_and_stays_near_float32(tmp_path: Path, tiny: list[str]) -> None:
    plain = train.run(compose("train", [*tiny, f"run={tmp_path / 'a'}"]), quiet=True)
    mixed = train.run(compose("train", [*tiny, f"run={tmp_path / 'b'}", "trainer.mixed_precision=bf16"]), quiet=True)
    assert mixed["test"]["loss"] == pytest.approx(plain["test"]["loss"], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["moe"])  # the head that skips parameters in a step
def test_two_processes_give_the_result_of_one_and_count_every_sample_once(
    tmp_path: Path, tiny: list[str], tiny_data: list[str], fusion: str, agrees_with_two_processes: Callable[..., None]
) -> None:
    store = tmp_path / "f.zarr"
    extract.run(compose("extract", [*tiny_data, f"store.path={store}", "store.dtype=float32"]))
    common = [*tiny, f"fusion={fusion}", f"features={store}"]
    if fusion == "moe":  # dense and sparse steps, with the balance loss (a mean over the batch) out of the way
        common += ["fusion.warmup_steps=2", "fusion.balance=0.0"]
    one = train.run(compose("train", [*common, f"run={tmp_path / 'one'}"]), quiet=True)
    agrees_with_two_processes(common, one, torchrun=True)


def test_a_store_of_other_features_is_not_taken_for_these(tmp_path: Path, tiny_data: list[str]) -> None:
    store = f"store.path={tmp_path / 'f.zarr'}"
    extract.run(compose("extract", [*tiny_data, store]))
    extract.run(compose("extract", [*tiny_data, store, "store.reuse=true"]))
    with pytest.raises(UserError, match=r"seed: 0 and 1"):
        extract.run(compose("extract", [*tiny_data, store, "store.reuse=true", "encoder.seed=1"]))
    with pytest.raises(UserError, match="holds other data for train"):
        extract.run(compose("extract", [*tiny_data, store, "store.reuse=true", "data.seed=5"]))
    with pytest.raises(UserError, match="already exists"):
        extract.run(compose("extract", [*tiny_data, store]))


def test_the_command_line_runs_a_whole_training(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["train", *tiny, f"run={tmp_path / 'run'}"]) == 0
    said = capsys.readouterr().err
    assert "test (7 samples)" in said
    assert "wrote" in said


def test_a_folder_is_named_as_it_is(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "a run of some length [b]"  # neither markup nor broken
    assert main(["train", *tiny, f"run='{run}'"]) == 0
    assert f"wrote {run}: result.json" in capsys.readouterr().err
    assert main(["eval", f"run='{run}'"]) == 0
    assert f"wrote {run / 'eval-test.json'}" in capsys.readouterr().err
