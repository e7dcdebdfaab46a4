"""What runs read and begin with: pooled as it is stored, the same data wherever it lies, one run after another."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satdifuser.commands import train
from satdifuser.compare.command import split_overrides
from satdifuser.compare.grid import Cell
from satdifuser.compare.launch import do
from satdifuser.compare.plan import Planned, in_turn, plan, with_features
from satdifuser.compare.shared import Shared
from satdifuser.compare.worker import failure, perform, result
from satdifuser.data.bands import SENTINEL2_RGB
from satdifuser.data.readers.folder import ImageFolder
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.launching import claimed

Cells = Callable[..., list[Cell]]
Make = Callable[..., Shared]


def with_store(cells: Cells, keep: str, **values: object) -> list[Cell]:
    return cells(store={"dtype": "float32", "keep": keep}, **values)


@pytest.mark.parametrize(
    ("keep", "pool"), [("maps", None), ("moments", "moments"), ("grid4", "grid4"), ("latents", None)]
)
def test_live_features_are_pooled_as_stored_ones_unless_a_model_says_otherwise(
    cells: Cells, keep: str, pool: str | None
) -> None:
    models = {"default": ["encoder=unet"], "maps": ["encoder=unet", "pool=null"], "own": ["encoder=unet", "pool=max"]}
    found = with_store(cells, keep, models=models)
    assert [cell.config.pool for cell in found] == [pool, None, "max"]


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """The same images in two places."""
    one = tmp_path / "one"
    for name in ("a", "b"):
        (one / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng().integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(one / name / f"{number}.png")
    return one, Path(shutil.copytree(one, tmp_path / "two"))


def of_tree(cells: Cells, root: Path, words: list[str]) -> Cell:
    recipe = ["data.size=16", "encoder.seed=0"]
    task = ["data=image_folder", f"data.root={root}", "task=classification"]
    (cell,) = cells(models={"m": words}, tasks={"t": task}, recipe=recipe)
    return cell


@pytest.mark.parametrize("words", [["encoder=small"], ["encoder=unet"]])
def test_images_that_were_moved_are_the_same_data(
    cells: Cells, shared: Make, trees: tuple[Path, Path], words: list[str]
) -> None:
    made = shared()  # one of them for both: what it remembers of one place must not stand for the other
    here, there = (of_tree(cells, root, words) for root in trees)
    assert made.key(here) == made.key(there)
    assert made.features(here) == made.features(there)
    assert (made.features(here) is None) == (words == ["encoder=unet"])
    name = ImageFolder(str(trees[1]), sensor=SENTINEL2_RGB).names[0]
    other = bytearray((trees[1] / name).read_bytes())
    other[len(other) // 2] ^= 1
    (trees[1] / name).write_bytes(other)  # of the same name and size
    assert shared().key(of_tree(cells, trees[1], words)) != made.key(here)
    shutil.copy(trees[0] / name, trees[1] / name)
    assert shared().key(of_tree(cells, trees[1], words)) == made.key(here)
    shutil.copy(trees[1] / "a" / "1.png", trees[1] / "a" / "10.png")
    grown = of_tree(cells, trees[1], words)
    assert shared().key(grown) != made.key(here)
    assert grown.config.data["root"] == str(trees[1])


PROBE = [
    "encoder=small_vit",
    "encoder.backbone.image_size=16",
    "encoder.blocks=last",
    "fusion=gw",
    "fusion.projection_dim=16",
]


def vits(cells: Cells, init: str = "probe", probe: tuple[str, ...] = (), **values: object) -> list[Cell]:
    models = {"adapted": [*PROBE, "adapter=lora", f"init={init}"], "probe": [*PROBE, *probe]}
    return cells(models=models, tasks={"t": ["task=classification"]}, **values)


def test_a_run_begins_with_that_of_the_same_labels_and_seed(cells: Cells, shared: Make) -> None:
    made = shared()
    planned = plan(vits(cells, seeds=[0, 1], budgets=[50, 100]), made)
    folder = {(run.cell.model, run.cell.budget, run.cell.seed): run.folder for run in planned}
    assert len(set(folder.values())) == 8
    for run in planned:
        first = str(folder["probe", run.cell.budget, run.cell.seed])
        assert run.cell.config.init == (first if run.cell.model == "adapted" else None)


def test_what_a_run_begins_with_is_part_of_its_key_and_its_name_is_not(cells: Cells, shared: Make) -> None:
    made = shared()

    def key(**values: object) -> str | None:
        run = plan(vits(cells, **values), made)[0]
        assert run.folder is not None, run.error
        return run.folder.name

    first = key()
    assert key() == first
    assert key(probe=("trainer.lr=0.1",)) != first
    models = {"b": [*PROBE, "adapter=lora", "init=a"], "a": PROBE}
    assert plan(cells(models=models, tasks={"t": ["task=classification"]}), made)[0].folder.name == first  # type: ignore[union-attr]


def test_runs_are_done_after_those_that_they_begin_with(cells: Cells, shared: Make) -> None:
    models = {"c": [*PROBE, "adapter=lora", "init=b"], "b": [*PROBE, "adapter=lora", "init=a"], "a": PROBE}
    planned = plan(cells(models=models, tasks={"t": ["task=classification"]}, seeds=[0, 1]), shared())
    turns = []
    for runs in in_turn(planned):
        turns.append([run.cell.model for run in runs])
        for run in runs:
            assert run.folder is not None
            run.folder.mkdir(parents=True)
            found = {"test": {"miou": 0.5}, "metric": "miou", "cost": {"training_seconds": 1.0}, "weights": {}}
            (run.folder / "result.json").write_text(json.dumps(found))
    assert turns == [["a", "a"], ["b", "b"], ["c", "c"]]


def test_what_another_process_left_undone_is_tried_again_in_the_next_turn(cells: Cells, shared: Make) -> None:
    planned = plan(vits(cells), shared())
    turns = [[run.cell.model for run in runs] for runs in in_turn(planned)]  # and nothing is done
    assert turns == [["probe"], ["probe", "adapted"]]


def test_features_that_cannot_be_made_fail_for_what_begins_with_their_runs_too(
    cells: Cells, shared: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shared()

    def full(self: Shared, cell: Cell) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(Shared, "extract", full)
    models = {
        "c": [*PROBE, "adapter=lora", "init=b"],
        "b": [*PROBE, "adapter=lora", "init=a"],
        "a": PROBE,
        "d": ["encoder=unet"],
    }
    planned = with_features(plan(cells(models=models, tasks={"t": ["task=classification"]}), made), made)
    assert [run.error for run in planned] == ["the disk is full"] * 3 + [None]
    assert [run.folder is None for run in planned] == [True, True, True, False]


def test_a_sweep_on_the_command_line_begins_each_with_its_own(cells: Cells, shared: Make) -> None:
    models = {"probe": PROBE, "adapted": [*PROBE, "adapter=lora", "init=probe"]}
    planned = plan(cells("trainer.lr=0.1,0.2", models=models, tasks={"t": ["task=classification"]}), shared())
    folder = {run.cell.model: str(run.folder) for run in planned}
    assert len(set(folder.values())) == 4
    for run in planned[2:]:
        assert run.cell.config.init == folder[run.cell.model.replace("adapted", "probe")]


def in_folder(run: Planned) -> tuple[Planned, Path]:
    assert run.folder is not None, run.error
    return run, run.folder


def done_in_turn(planned: list[Planned], made: Shared) -> None:
    for runs in in_turn(planned):
        do(runs, made.output / "jobs", threads=1)


@pytest.mark.slow
def test_a_grid_does_the_head_first_and_then_the_adapter_with_it(cells: Cells, shared: Make) -> None:
    made = shared(share_features=False)
    planned = plan(vits(cells), made)
    done_in_turn(planned, made)
    assert not any(run.missing for run in planned)
    adapted, probe = (load_checkpoint(RunFolder(run.folder or "").best)[1] for run in planned)
    assert {name for name in adapted if not name.startswith("encoder.")} == probe.keys()
    assert list(in_turn(planned)) == []
    (again, _) = plan(vits(cells), made)
    assert result(again.folder or Path()) is not None


@pytest.mark.slow
def test_a_run_whose_first_one_failed_says_so(cells: Cells, shared: Make) -> None:
    made = shared(share_features=False)
    planned = plan(vits(cells, probe=("trainer.lr=1e30", "trainer.clip_norm=null")), made)
    done_in_turn(planned, made)
    (_, adapted), (_, probe) = map(in_folder, planned)
    assert failure(probe) is not None
    assert failure(adapted) == f"the run that it begins with has failed: {failure(probe)}"


@pytest.mark.slow
def test_a_run_that_somebody_else_is_doing_is_waited_for(cells: Cells, shared: Make, tmp_path: Path) -> None:
    made = shared(share_features=False)
    adapted, probe = (in_folder(run) for run in plan(vits(cells), made))
    file = tmp_path / "adapted.yaml"
    file.write_text(adapted[0].cell.config.yaml())
    probe[1].parent.mkdir(parents=True)
    waiting = threading.Thread(target=perform, args=(file,), daemon=True)
    with claimed(probe[1].with_suffix(".lock")) as mine:
        assert mine
        waiting.start()
        waiting.join(2)
        assert waiting.is_alive()
        assert failure(adapted[1]) is None
        train.run(probe[0].cell.config, quiet=True, draw=False)
    waiting.join(120)
    assert result(adapted[1]) is not None


def test_a_model_that_begins_with_itself_is_one_line(cells: Cells, shared: Make) -> None:
    models = {"b": [*PROBE, "adapter=lora", "init=a"], "a": [*PROBE, "init=b"]}
    planned = plan(cells(models=models, tasks={"t": ["task=classification"]}), shared())
    assert [run.folder for run in planned] == [None, None]
    assert all("a model cannot begin with itself" in (run.error or "") for run in planned)


def test_a_name_that_is_neither_a_model_nor_a_run_is_one_line(cells: Cells, shared: Make) -> None:
    (run, other) = plan(vits(cells, init="prode"), shared())
    assert run.error == (
        "init=prode is neither a model of this grid nor the folder of a finished run: the models are adapted, probe;"
        " did you mean probe?"
    )
    assert other.error is None


def test_a_run_elsewhere_can_be_begun_with_and_is_told_by_what_it_trained(
    cells: Cells, shared: Make, tmp_path: Path
) -> None:
    made = shared(share_features=False)
    probe = plan(cells(models={"probe": PROBE}, tasks={"t": ["task=classification"]}), made)
    done_in_turn(probe, made)
    place = probe[0].folder
    assert place is not None
    first = plan(vits(cells, init=str(place)), made)[0]
    moved = shutil.move(place, tmp_path / "elsewhere")
    assert plan(vits(cells, init=str(moved)), made)[0].folder == first.folder


def test_what_an_experiment_calls_by_a_name_of_its_own_is_set_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nsteps: 3\nmodels: {m: ['trainer.max_steps=${steps}']}\n"
    more = "trainer: {lr: 3}\n"  # train's word: not the experiment's
    (tmp_path / "experiment" / "mine.yaml").write_text(text + more)
    words = ["experiment=mine", "steps=7", "trainer.lr=0.1", "hydra/launcher=joblib"]
    assert split_overrides(words, [str(tmp_path)]) == (words[:2], words[2:3], words[3:])
