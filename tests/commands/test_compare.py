"""satdifuser compare as a user calls it: a grid is done, goes on, is repeated, and says what went wrong."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satdifuser.cli import main
from satdifuser.commands import train
from satdifuser.config import compose
from satdifuser.data.synthetic import dataset as synthetic
from satdifuser.engine.predictions import Predictions
from satdifuser.engine.run import RunFolder
from satdifuser.engine.trainer import Trainer
from satdifuser.errors import UserError

pytestmark = [pytest.mark.xdist_group("compare"), pytest.mark.slow]  # all of these tests read its grid

DATA = ["data.size=16", "data.splits.train.length=30", "data.splits.val.length=4", "data.splits.test.length=9"]
TRAINER = ["trainer=quick", "trainer.max_steps=3", "trainer.batch_size=4", "trainer.eval_every=2"]
HEAD = ["fusion.projection_dim=16"]
SMALL = ["encoder=small", "encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21]"]
UNET = ["encoder=unet", "encoder.width=8", "encoder.levels=2", "fusion=mean", *HEAD]
MODELS = {"features": [*SMALL, "fusion=gw", *HEAD], "net": UNET}
FILES = ("report.html", "tables.md", "ranking.csv", "comparisons.csv", "tables.tex")
TIMINGS = ("training_seconds", "extraction_seconds", "peak_bytes")  # they differ from time to time
SETTINGS = ["resamples=200", "shown=2", "store.dtype=float32"]

Compare = Callable[..., int]


def words_of(
    folder: Path, output: Path, models: dict[str, list[str]], words: Sequence[str], **values: Any
) -> list[str]:
    """The words of a command over an experiment that is written into `folder`."""
    settings = {
        "models": models,
        "tasks": {"images": ["task=classification"]},
        "recipe": [*DATA, *TRAINER],
        "budgets": [100],
        "seeds": [0, 1],
        **values,
    }
    (folder / "experiment").mkdir(parents=True, exist_ok=True)
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\n" + json.dumps(settings))
    return ["compare", "--config-dir", str(folder), "experiment=mine", f"output={output}", *SETTINGS, *words]


@pytest.fixture(scope="module", autouse=True)
def _scenes_are_rendered_once() -> Iterator[None]:
    """The same scenes come in every run, and rendering one takes longer than a step of these models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "render", lru_cache(maxsize=None)(synthetic.render))
        yield


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Run `satdifuser compare` on a tiny grid, into `tmp_path / "out"` or another folder there."""

    def run(*words: str, output: str = "out", models: dict[str, list[str]] = MODELS, **values: Any) -> int:
        return main(words_of(tmp_path / "configs", tmp_path / output, models, words, **values))

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the grid, done without a break; tests work on copies of it or only read."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(words_of(folder / "configs", folder / "out", MODELS, [])) == 0
    return folder / "out"


def table(folder: Path, name: str = "ranking.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def scores(folder: Path) -> list[dict[str, str]]:
    """The ranking without what it took."""
    rows = table(folder)
    assert rows
    assert all(name in rows[0] for name in TIMINGS)
    return [{name: value for name, value in row.items() if name not in TIMINGS} for row in rows]


def same_results(one: Path, other: Path) -> None:
    assert scores(one) == scores(other)
    assert (one / "comparisons.csv").read_bytes() == (other / "comparisons.csv").read_bytes()


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("runs/*/result.json"))]


def one_line(capsys: pytest.CaptureFixture) -> str:
    """The last line of what was said, which is the error's and the only one of it."""
    said = capsys.readouterr().err.strip().splitlines()
    assert sum(line.startswith("satdifuser: ") for line in said) == 1
    assert said[-1].startswith("satdifuser: ")
    assert not any("Traceback" in line for line in said)
    return said[-1]


def test_a_grid_gives_its_tables_and_keeps_its_runs(whole: Path) -> None:
    for name in FILES:
        assert (whole / name).stat().st_size > 0, name
    assert len(results(whole)) == 4
    assert len(list(whole.glob("features/*.zarr"))) == 1
    rows = {row["model"]: row for row in table(whole)}
    assert set(rows) == {"features", "net"}
    assert len(table(whole, "comparisons.csv")) == 1
    assert not list(whole.glob("jobs/*.yaml"))
    assert not list(whole.glob("runs/*.lock"))
    for name, row in rows.items():
        of = [found for found in results(whole) if (found["encoder_parameters"] is None) == (name == "features")]
        tests = [found["test"]["accuracy"] for found in sorted(of, key=lambda found: found["seed"])]
        assert float(row["accuracy_mean"]) == pytest.approx(np.mean(tests), abs=1e-6)
        assert [float(value) for value in row["accuracy_by_seed"].split()] == pytest.approx(tests, abs=1e-6)


def test_again_nothing_is_trained_and_the_tables_are_the_same_bytes(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = {name: (whole / name).read_bytes() for name in FILES}
    stamps = {path: path.stat().st_mtime_ns for path in whole.glob("runs/*/**/*") if path.is_file()}
    for name in ("satdifuser.commands.train.run", "satdifuser.commands.extract.run"):
        monkeypatch.setattr(name, lambda *args, **kwargs: pytest.fail("done again"))
    words = words_of(tmp_path, whole, MODELS, [])
    assert main(words) == 0
    assert "4 runs, 0 to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in whole.glob("runs/*/**/*") if path.is_file()} == stamps
    for name in FILES:
        if name != "report.html":  # which repeats the command
            assert (whole / name).read_bytes() == before[name], name


def test_a_grid_that_grows_does_only_what_is_new(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(whole, tmp_path / "out")
    run, trained = train.run, list[tuple[str, int]]()

    def note(config: Any, **kwargs: Any) -> Any:
        trained.append((config.encoder.path.rpartition(".")[2], config.seed))
        return run(config, **kwargs)

    monkeypatch.setattr(train, "run", note)
    models = {"renamed": MODELS["net"]}
    assert main(words_of(tmp_path / "configs", tmp_path / "out", models, [], seeds=[1, 2])) == 0
    assert trained == [("UNetEncoder", 2)]
    (row,) = table(tmp_path / "out")
    assert (row["model"], row["seeds"]) == ("renamed", "1 2")


def test_a_model_that_begins_with_another_ones_head_is_done_after_it(
    compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    vit = ["encoder=small_vit", "encoder.backbone.image_size=16", "encoder.blocks=last", *HEAD]
    models = {"adapted": [*vit, "adapter=lora", "init=probe"], "probe": vit}
    words = ["store.keep=moments", "seed=0"]
    assert compare(*words, "dry_run=true", models=models) == 0
    assert not (tmp_path / "out" / "runs").exists()
    assert compare(*words, models=models) == 0
    said = capsys.readouterr().err
    assert said.index("probe, images, 100") < said.index("adapted, images, 100")
    assert {row["model"] for row in table(tmp_path / "out")} == {"adapted", "probe"}
    specs = [json.loads(file.read_text()) for file in (tmp_path / "out").glob("runs/*/spec.json")]
    assert [spec["settings"]["pooled"] for spec in specs] == ["moments"] * 2


def test_the_same_grid_in_another_folder_gives_the_same_and_seeds_differ(
    whole: Path, compare: Compare, tmp_path: Path
) -> None:
    by_seed = [[found["test"] for found in results(whole) if found["seed"] == seed] for seed in (0, 1)]
    assert len(by_seed[0]) == len(by_seed[1]) == 2
    assert all(one != other for one in by_seed[0] for other in by_seed[1])
    assert compare(output="another", models={"net": UNET}) == 0
    again = {found["seed"]: found["test"] for found in results(tmp_path / "another")}
    assert again == {found["seed"]: found["test"] for found in results(whole) if found["encoder_parameters"]}
    (row,) = [row for row in table(whole) if row["model"] == "net"]
    (other,) = table(tmp_path / "another")
    assert {name: other[name] for name in other if name.startswith("accuracy_")} == {
        name: row[name] for name in row if name.startswith("accuracy_")
    }


def test_a_grid_that_was_interrupted_goes_on_to_the_tables_of_an_unbroken_one(
    whole: Path, compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    step, steps = Trainer._step, list[int]()

    def interrupt(self: Trainer, *args: Any) -> dict[str, Any]:
        if len(steps) == 3 + 2:  # in the last step of the second run, after its first checkpoint
            raise KeyboardInterrupt
        steps.append(self.state.step)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupt)
        assert compare() == 130
    said = capsys.readouterr().err
    assert "the same command goes on from there" in " ".join(said.split())
    assert "Traceback" not in said
    assert len(results(tmp_path / "out")) == 1
    assert not (tmp_path / "out" / "ranking.csv").exists()

    def count(self: Trainer, *args: Any) -> dict[str, Any]:
        steps.append(self.state.step)
        return step(self, *args)

    steps.clear()
    monkeypatch.setattr(Trainer, "_step", count)
    assert compare() == 0
    assert steps == [2, 0, 1, 2, 0, 1, 2]  # the rest of the broken run, and two whole ones
    same_results(tmp_path / "out", whole)
    assert not list((tmp_path / "out").glob("runs/*.lock"))


def launched(words: Sequence[str], **kwargs: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "satdifuser", *words],
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **kwargs,
    )


@pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")
def test_a_grid_that_was_killed_goes_on_to_the_tables_of_an_unbroken_one(
    whole: Path, compare: Compare, tmp_path: Path
) -> None:
    words = words_of(tmp_path / "configs", tmp_path / "out", MODELS, [])
    process = launched(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    try:
        while not list((tmp_path / "out").glob("runs/*/checkpoints/last.safetensors")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(results(tmp_path / "out")) < 4
    assert not (tmp_path / "out" / "ranking.csv").exists()
    assert compare() == 0
    same_results(tmp_path / "out", whole)


def test_two_workers_give_the_tables_of_one(whole: Path, compare: Compare, tmp_path: Path) -> None:
    assert compare("hydra/launcher=joblib", "hydra.launcher.n_jobs=2") == 0
    same_results(tmp_path / "out", whole)


def test_a_bad_model_is_told_and_the_others_are_done(
    compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    models = {"bad": ["encoder=unconditional", "encoder.backbone.weights=/nowhere"], "net": UNET}
    assert compare(models=models, seeds=[0]) == 2
    said = one_line(capsys)
    assert "1 of 2 runs failed" in said
    assert "bad for images" in said
    assert "/nowhere" in said
    for name in FILES:
        assert (tmp_path / "out" / name).is_file()
    assert {row["model"] for row in table(tmp_path / "out") if row["accuracy_mean"]} == {"net"}
    assert len(results(tmp_path / "out")) == 1


def test_a_budget_too_small_to_show_every_class_fails_in_one_line_and_the_others_go_on(
    compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert compare(models={"net": UNET}, budgets=[10, 100], seeds=[0]) == 2
    assert "too few to show" in one_line(capsys)
    assert [found["budget"] for found in results(tmp_path / "out")] == [100]


def test_the_samples_of_a_small_budget_are_among_those_of_a_larger_one_for_every_model_and_seed(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen where training begins; it ends there, too, for it would change nothing."""
    used: dict[tuple[str, int, float], tuple[str, ...]] = {}
    run, init = train.run, Trainer.__post_init__
    current: list[Any] = []

    def note_run(config: Any, **kwargs: Any) -> Any:
        current.append(config)
        return run(config, **kwargs)

    def note(self: Trainer) -> None:
        init(self)
        config = current[-1]
        ids = tuple(self.train.sample_id(index) for index in range(len(self.train)))
        used[config.encoder.path.rpartition(".")[2], config.seed, config.budget] = ids
        raise UserError("seen")

    monkeypatch.setattr(train, "run", note_run)
    monkeypatch.setattr(Trainer, "__post_init__", note)
    tasks = {"pixels": ["task=segmentation"]}
    assert compare("budget=10,50", tasks=tasks) == 2
    assert len(used) == 8
    for model in ("DiffusionEncoder", "UNetEncoder"):
        for seed in (0, 1):
            few, many = (used[model, seed, budget] for budget in (10.0, 50.0))
            assert (len(set(few)), len(set(many))) == (3, 15)
            assert set(few) < set(many)
            assert set(few) == set(used["UNetEncoder", 0, 10.0])  # the same for all


def test_train_takes_a_budget_on_its_own(tmp_path: Path) -> None:
    words = [*DATA, *TRAINER, *UNET, "task=classification", "budget=50", f"run={tmp_path / 'run'}"]
    assert main(["train", *words]) == 0
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (found["training_samples"], found["budget"]) == (15, 50)


def test_torchrun_is_refused_in_one_line(
    compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert compare() == 2
    said = one_line(capsys)
    assert "not torchrun" in said
    assert "hydra/launcher=joblib" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["experiment=dmo"], ["no experiment=dmo: there is ", "demo", "did you mean demo?"]),
        (
            ["experiment=demo", "fusion=gw,nope"],
            ["nope", "there is concat, gw, levels, lw", "diffusion + gw nope, segmentation"],
        ),
        (["seed=0,0"], ["seed is [0, 0]"]),
        (["trainer.max_step=3"], ["trainer.max_step"]),
        (["resample=3"], ["resample"]),
        (["budgets=10"], ["budgets"]),
        (["resamples=many"], ["resamples is 'many'"]),
        (["shown=-1"], ["shown is -1"]),
        (["hydra/launcher=nope"], ["no hydra/launcher=nope is installed", "satdifuser[launchers]"]),
        (["hydra/launcher=joblib", "hydra.launcher.njobs=2"], ["no setting 'hydra.launcher.njobs'"]),
        (["seeds=[a]"], ["seed"]),
        (["store.keep=moment"], ["store.keep is 'moment'", "did you mean moments or mean?"]),
        (["store.keep=4"], ["store.keep is 4: it must be maps, mean, max, moments, quantiles, grid2"]),
    ],
)
def test_what_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], said: list[str]
) -> None:
    assert main(["compare", *words, f"output={tmp_path / 'out'}"]) == 2
    line = one_line(capsys)
    assert all(word in line for word in said), line
    assert not (tmp_path / "out" / "runs").exists()


def test_a_dry_run_does_nothing(compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert compare("dry_run=true", models={"net": UNET}) == 0
    out = capsys.readouterr().out
    assert "2 runs to do" in " ".join(out.split())
    assert not (tmp_path / "out" / "runs").exists()
    assert not (tmp_path / "out" / "features").exists()
    assert not (tmp_path / "out" / "ranking.csv").exists()


@pytest.mark.parametrize("fusion", ["lw"])
def test_two_processes_keep_the_predictions_of_one(
    tmp_path: Path, tiny: list[str], fusion: str, agrees_with_two_processes: Callable[..., None]
) -> None:
    from safetensors.numpy import load_file

    common = [*tiny, *SMALL, f"fusion={fusion}", "task=classification"]
    if fusion == "moe":  # the balance loss is a mean over the batch of a process
        common += ["fusion.warmup_steps=2", "fusion.balance=0.0", "fusion.experts=4"]
    one = train.run(compose("train", [*common, f"run={tmp_path / 'one'}"]), quiet=True)
    agrees_with_two_processes(common, one)
    a, b = (Predictions.load(RunFolder(tmp_path / name).path / "predictions-test.zarr") for name in ("one", "two"))
    assert a.ids == b.ids
    np.testing.assert_array_equal(a.truth, b.truth)
    assert a.logits is not None
    assert b.logits is not None
    np.testing.assert_allclose(a.logits, b.logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(a.prediction, b.prediction)
    kept = [load_file(tmp_path / name / "insight-test.safetensors") for name in ("one", "two")]
    assert kept[0].keys() == kept[1].keys()
    for name, values in kept[0].items():
        np.testing.assert_allclose(kept[1][name], values, rtol=1e-3, atol=1e-3, err_msg=name)
