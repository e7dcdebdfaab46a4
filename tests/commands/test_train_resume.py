"""A run that is taken up again goes on with the features and samples that it began with, or says what is different."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from satdifuser.cli import main
from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError

pytestmark = pytest.mark.slow

ENCODER = ["encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21, 161]"]
Make = Callable[..., str]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def stored(tmp_path: Path, tiny_data: list[str]) -> Make:
    """Extract to a store and give its path."""

    def run(path: str, *words: str) -> str:
        common = [*tiny_data, *ENCODER, f"store.path={tmp_path / path}", "store.dtype=float32"]
        return extract.run(compose("extract", [*common, *words]))

    return run


@pytest.fixture
def trained(tmp_path: Path, tiny: list[str]) -> Run:
    """Train in the folder `run`, of three evaluations of which the last is missing when it is resumed."""

    def run(*words: str) -> dict[str, Any]:
        config = compose("train", [*tiny, *ENCODER, "task=classification", f"run={tmp_path / 'run'}", *words])
        return train.run(config, quiet=True, draw=False)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unfinish(folder: Path) -> None:
    """What a run has that was interrupted after its last checkpoint."""
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "predictions-test.zarr")


def refused(folder: Path, trained: Run, *words: str) -> str:
    """Why it does not go on; the folder is as it was."""
    before = contents(folder)
    with pytest.raises(UserError) as error:
        trained("resume=true", *words)
    assert contents(folder) == before
    said = str(error.value)
    assert "\n" not in said
    assert str(folder) in said
    return said


OTHERS = {
    "encoder": (["encoder.seed=1"], r"other features .*seed: 0 and 1"),
    "timesteps": (["encoder.timesteps=[21, 61]"], r"other features .*@161"),
    "precision": (["store.dtype=int8"], r"float32 maps.* int8 maps"),
    "latents": (["store.keep=latents"], r"float32 maps.* float32 latents"),
    "training samples": (["data.splits.train.length=9"], r"train.* 8 samples.* 9"),
    "validation samples": (["data.splits.val.length=6"], r"val.* 5 samples.* 6"),
    "test samples": (["data.splits.test.length=9"], r"test.* 7 samples.* 9"),
    "scenes": (["data.seed=5"], r"train.* other samples, such as scene-5-"),
}


@pytest.mark.parametrize("change", OTHERS)
def test_a_run_does_not_go_on_with_another_store(tmp_path: Path, stored: Make, trained: Run, change: str) -> None:
    words, says = OTHERS[change]
    trained(f"features={stored('a.zarr')}")
    unfinish(tmp_path / "run")
    said = refused(tmp_path / "run", trained, f"features={stored('b.zarr', *words)}")
    assert re.search(says, said), said


def test_a_run_begun_on_images_does_not_go_on_with_stored_features(tmp_path: Path, stored: Make, trained: Run) -> None:
    trained()
    assert "images" in refused(tmp_path / "run", trained, f"features={stored('a.zarr')}")


def test_a_run_begun_on_stored_features_does_not_go_on_with_images(tmp_path: Path, stored: Make, trained: Run) -> None:
    trained(f"features={stored('a.zarr')}")
    assert "images" in refused(tmp_path / "run", trained)


def test_a_run_goes_on_with_the_same_store_in_another_place(tmp_path: Path, stored: Make, trained: Run) -> None:
    first = stored("a.zarr")
    whole = trained(f"features={first}")
    unfinish(tmp_path / "run")
    shutil.move(first, tmp_path / "moved.zarr")
    again = trained("resume=true", f"features={tmp_path / 'moved.zarr'}")
    assert again["test"] == whole["test"]
    assert RunFolder(tmp_path / "run").settings().features == str(tmp_path / "moved.zarr")


def test_a_run_of_an_earlier_version_is_told_by_its_spec_and_samples(
    tmp_path: Path, stored: Make, trained: Run
) -> None:
    store = stored("a.zarr")
    whole = trained(f"features={store}")
    (tmp_path / "run" / "data.json").unlink()
    other = stored("b.zarr", "data.seed=5")
    assert "scene-5-" in refused(tmp_path / "run", trained, f"features={other}")
    other = stored("c.zarr", "encoder.seed=1")
    assert "seed: 0 and 1" in refused(tmp_path / "run", trained, f"features={other}")
    assert trained("resume=true", f"features={store}")["test"] == whole["test"]
    assert (tmp_path / "run" / "data.json").is_file()


def image_tree(folder: Path, count: int = 60) -> list[str]:
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / ("forest", "water")[number % 2] / f"tile{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return ["data=image_folder", f"data.root={folder}", "encoder=unet", "encoder.width=8", "fusion=mean"]


def test_a_run_on_a_folder_of_images_knows_when_they_have_changed(
    tmp_path: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("images")
    words = [*image_tree(root), "data.size=16", *tiny[4:], "task=classification", "encoder.levels=2"]

    def trained(*more: str) -> dict[str, Any]:
        return train.run(compose("train", [*words, f"run={tmp_path / 'run'}", *more]), quiet=True, draw=False)

    whole = trained()
    unfinish(tmp_path / "run")
    assert trained("resume=true")["test"] == whole["test"]
    name = RunFolder(tmp_path / "run").seen()[0]
    original = next(root.rglob(Path(name).stem + ".png"))
    kept = original.read_bytes()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(original)
    assert "train" in refused(tmp_path / "run", trained)
    original.unlink()
    assert "train" in refused(tmp_path / "run", trained)
    original.write_bytes(kept)
    for number in range(100, 110):
        shutil.copy(original, original.with_name(f"tile{number}.png"))
    assert "train" in refused(tmp_path / "run", trained)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trainer.optimizer=adamm"], "adamm"),
        (["fusion.projection_dim=4"], "projection_dim"),
        (["features=nowhere.zarr"], "nowhere.zarr"),
        (["data.splits.val.length=0"], "val"),
        (["task=nothing_like_this"], "task"),
        (["init=nowhere"], "nowhere"),
    ],
)
def test_a_run_that_fails_at_the_door_has_not_replaced_the_old_one(
    tmp_path: Path, trained: Run, words: list[str], says: str
) -> None:
    trained()
    before = contents(tmp_path / "run")
    with pytest.raises(UserError, match=says):
        trained("overwrite=true", *words)
    assert contents(tmp_path / "run") == before


def test_a_run_whose_images_or_labels_cannot_be_used_has_not_replaced_the_old_one(
    tmp_path: Path, tiny: list[str], trained: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trained()
    before = contents(tmp_path / "run")
    root = tmp_path_factory.mktemp("images")
    words = [*image_tree(root), "encoder.levels=2", "data.size=16", *tiny[4:], f"run={tmp_path / 'run'}"]
    for more, says in (("task=segmentation", "learns 'mask'"), ("data.size=32", "32")):
        with pytest.raises(UserError, match=says):
            train.run(compose("train", [*words, "overwrite=true", more]), quiet=True)
        assert contents(tmp_path / "run") == before


def test_a_missing_test_split_is_told_before_training(tmp_path: Path, stored: Make, trained: Run) -> None:
    store = stored("a.zarr", "store.splits=[train, val]")
    with pytest.raises(UserError, match="no split 'test'"):
        trained(f"features={store}")
    assert not (tmp_path / "run").exists()


def test_a_run_whose_settings_are_lost_is_not_taken_up_with_any(tmp_path: Path, trained: Run) -> None:
    trained()
    (tmp_path / "run" / "config.yaml").unlink()
    assert "config.yaml" in refused(tmp_path / "run", trained, "trainer.lr=0.5")


NEW = [  # since the first wave
    *("encoder.compat", "encoder.prediction", "fusion.init", "augmentation"),
    *("trainer.schedule", "trainer.warmup_from", "trainer.last_batch"),
]


def test_a_run_of_an_earlier_version_goes_on_as_it_was_begun_and_not_with_what_it_did_not_know(
    tmp_path: Path, trained: Run
) -> None:
    """Its configuration lacks the settings of today, and says the mode that is left open today."""
    trained()
    folder = tmp_path / "run"
    unfinish(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for name in NEW:
        *path, last = name.split(".")
        group = config
        for step in path:
            group = group[step]
        del group[last]
    assert config["encoder"]["mode"] == "noise"
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    before = contents(folder)
    for word in (
        *("encoder.compat=released", "encoder.prediction=epsilon", "fusion.init=msra", "augmentation=classification"),
        *("trainer.last_batch=keep", "trainer.warmup_from=0.0001", "fusion=lw", "fusion=moe fusion.released=true"),
    ):
        with pytest.raises(UserError, match=f"was begun with another .*{word.split('=')[0]}"):
            trained("resume=true", *word.split())
    assert contents(folder) == before
    trained("resume=true")
    assert (folder / "result.json").is_file()


def test_eval_with_other_samples_leaves_the_answers_of_the_run_alone(
    tmp_path: Path, stored: Make, trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    store = stored("a.zarr")
    trained(f"features={store}")
    run = tmp_path / "run"
    before = {name: value for name, value in contents(run).items() if "predictions-test" in name}
    assert before
    other = stored("b.zarr", "data.splits.test.length=9")
    assert main(["eval", f"run={run}", f"features={other}"]) == 0
    assert "test had 7 samples, and has 9" in capsys.readouterr().err
    after = contents(run)
    assert {name: after[name] for name in before} == before
    found = json.loads((run / "eval-test.json").read_text())
    assert (found["samples"], found["features"]) == (9, other)
    assert (run / "predictions-test-b.zarr").is_dir()
    assert main(["eval", f"run={run}"]) == 0
    assert json.loads((run / "eval-test.json").read_text())["samples"] == 7


def test_eval_does_not_test_on_what_the_run_has_learned_from(
    tmp_path: Path, stored: Make, trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(f"features={stored('a.zarr')}")
    words = ["store.splits=[test]", "data.splits.test.split=train", "data.splits.test.length=9"]
    other = stored("b.zarr", *words)
    assert main(["eval", f"run={tmp_path / 'run'}", f"features={other}"]) == 2
    assert "has learned from 8 of the 9 samples in test, such as scene-0-" in capsys.readouterr().err
    assert main(["eval", f"run={tmp_path / 'run'}", "split=train"]) == 0


def test_two_processes_do_not_go_on_with_another_store(
    tmp_path: Path, tiny: list[str], stored: Make, in_two_processes: Callable[..., tuple[int, str]]
) -> None:
    run = tmp_path / "run"
    words = [*tiny, *ENCODER, "task=classification", f"run={run}"]
    first, other = stored("a.zarr"), stored("b.zarr", "encoder.seed=1")
    code, said = in_two_processes("train", *words, f"features={first}")
    assert code == 0, said[-3000:]
    before = contents(run)
    code, said = in_two_processes("train", *words, f"features={other}", "resume=true")
    assert code != 0
    assert "seed: 0 and 1" in said
    assert contents(run) == before
