"""The grid: which runs there are, in which order, under which names, and what tells one from another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from satdifuser.compare import grid
from satdifuser.compare.grid import Cell
from satdifuser.compare.overrides import merged
from satdifuser.compare.shared import Shared
from satdifuser.config import compose
from satdifuser.errors import UserError

Cells = Callable[..., list[Cell]]
Make = Callable[..., Shared]


def places(cells: list[Cell]) -> list[tuple[str, str, float, int]]:
    return [(cell.task, cell.model, cell.budget, cell.seed) for cell in cells]


def heads(cells: list[Cell]) -> list[str]:
    return [cell.config.fusion.path.rpartition(".")[2] for cell in cells]


def test_a_grid_goes_by_task_then_model_then_budget_then_seed(cells: Cells) -> None:
    found = cells(
        models={"b": ["fusion=lw"], "a": ["fusion=gw"]},
        tasks={"z": ["task=classification"], "y": ["task=segmentation"]},
        budgets=[100, 50],
        seeds=[3, 0],
    )
    expected = [
        (task, model, budget, seed)
        for task in ("z", "y")
        for model in ("b", "a")
        for budget in (100.0, 50.0)
        for seed in (3, 0)
    ]
    assert places(found) == expected
    kinds = {"z": "Classification", "y": "Segmentation"}
    kept = {"b": "LocalizedWeighted", "a": "GlobalWeighted"}
    for cell in found:
        assert cell.config.task.path.endswith("." + kinds[cell.task])
        assert cell.config.fusion.path.endswith("." + kept[cell.model])
        assert (cell.config.budget, cell.config.seed) == (cell.budget, cell.seed)
        assert cell.config.trainer.max_steps == 3


def test_a_task_can_say_something_of_one_model_alone(cells: Cells) -> None:
    found = cells(
        models={"net": ["encoder=unet", "fusion=gw,lw"], "other": ["encoder=unet", "trainer.lr=0.1"]},
        tasks={
            "fine": {"all": ["task=segmentation", "trainer.lr=0.2"], "net": ["encoder.width=8"], "other": []},
            "coarse": ["task=segmentation"],
        },
    )
    widths = {(cell.task, cell.model): cell.config.encoder["width"] for cell in found}
    assert {key for key, width in widths.items() if width == 8} == {("fine", "net gw"), ("fine", "net lw")}
    rates = {(cell.task, cell.model): cell.config.trainer.lr for cell in found}
    assert (rates["fine", "net lw"], rates["fine", "other"]) == (0.2, 0.1)  # a model's own comes after its task's
    variant = {"fine": {"net lw": ["encoder.width=8"], "net": ["trainer.lr=0.3"]}}
    found = cells(models={"net": ["encoder=unet", "fusion=gw,lw"]}, tasks=variant)
    assert {cell.model: (cell.config.encoder["width"], cell.config.trainer.lr) for cell in found} == {
        "net gw": (32, 0.3),
        "net lw": (8, 0.3),
    }
    gone = cells(models={"net": ["encoder=unet"], "other": None}, tasks={"fine": {"other": ["trainer.lr=0.3"]}})
    assert {cell.model for cell in gone} == {"net"}  # what is said of a model that was left out is no mistake
    swept = cells("data.size=32,16", models={"net": ["encoder=unet"]}, tasks={"fine": {"net": ["encoder.width=8"]}})
    assert {cell.config.encoder["width"] for cell in swept} == {8}


def test_a_task_can_be_for_some_of_the_models(cells: Cells) -> None:
    models = {"net": ["encoder=unet", "fusion=gw,lw"], "net-wide": ["encoder=unet", "encoder.width=16"]}
    tasks = {
        "fine": {"models": ["net*", "!net-wide"], "net*": ["encoder.width=8"]},
        "coarse": {
            "models": ["net-wide"],
            "all": ["task=classification"],
            "net*": ["trainer.lr=0.3"],
            "gone*": ["x=1"],
        },
        "both": ["task=segmentation"],
    }
    found = cells(models=models, tasks=tasks)
    assert [(cell.task, cell.model) for cell in found] == [
        ("fine", "net gw"),
        ("fine", "net lw"),
        ("coarse", "net-wide"),
        *(("both", model) for model in ("net gw", "net lw", "net-wide")),
    ]
    assert [cell.config.encoder["width"] for cell in found] == [8, 8, 16, 32, 32, 16]
    assert [cell.config.trainer.lr == 0.3 for cell in found] == [cell.task == "coarse" for cell in found]
    with pytest.raises(UserError, match=r"^tasks\.fine\.models names nett: no such model.*did you mean net"):
        cells(models=models, tasks={"fine": {"models": ["nett"]}})
    with pytest.raises(UserError, match="no task is for any of the models"):
        cells(models=models, tasks={"fine": {"models": ["other*"]}})


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"nte": []}, r"tasks\.fine\.nte: no such model.*did you mean net"),
        ({"net": ["data.size=8"]}, r"tasks\.fine\.net sets data\.size: what all models share is for tasks\.fine\.all"),
        ({"net": ["fusion=gw,lw"]}, r"tasks\.fine\.net has 2 choices of fusion: a sweep is for models\.net"),
        ({"net": "encoder.width=8"}, r"tasks\.fine\.net must be a list of overrides"),
    ],
)
def test_what_a_task_cannot_say_of_a_model_is_an_error_that_names_both(cells: Cells, own: object, said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}"):
        cells(models={"net": ["encoder=unet"]}, tasks={"fine": own})


def test_without_models_and_tasks_there_is_one_run_with_the_defaults_of_train(cells: Cells) -> None:
    (only,) = cells()
    assert places([only]) == [("task", "model", 100.0, 0)]
    assert heads([only]) == ["GlobalWeighted"]
    assert only.config.task.path.endswith(".Segmentation")


def test_settings_that_follow_the_seed_follow_that_of_each_run(cells: Cells) -> None:
    found = cells(models={"net": ["encoder=unet"]}, seeds=[4, 7])
    assert [cell.config.encoder["seed"] for cell in found] == [4, 7]


def test_a_model_that_is_too_dear_can_have_some_of_the_budgets_and_seeds(cells: Cells) -> None:
    dear = {"all": ["encoder=small_vit", "fusion=gw,lw"], "budgets": [10, 100], "seeds": [1]}
    models = {"cheap": [], "dear": dear}
    found = cells(models=models, budgets=[1, 10, 100], seeds=[0, 1])
    places = {name: [(cell.budget, cell.seed) for cell in found if cell.model == name] for name in ("cheap", "dear lw")}
    assert places["cheap"] == [(1, 0), (1, 1), (10, 0), (10, 1), (100, 0), (100, 1)]
    assert places["dear lw"] == [(10, 1), (100, 1)]
    assert {cell.model for cell in found} == {"cheap", "dear gw", "dear lw"}
    fewer = cells("budget=10", models=models, budgets=[1, 10, 100], seeds=[0, 1])
    assert [(cell.model, cell.seed) for cell in fewer] == [("cheap", 0), ("cheap", 1), ("dear gw", 1), ("dear lw", 1)]


def test_a_model_that_has_nothing_of_the_grid_is_named(cells: Cells, caplog: pytest.LogCaptureFixture) -> None:
    models = {"cheap": [], "dear": {"all": [], "budgets": [5, 10]}}
    assert {cell.model for cell in cells(models=models, budgets=[1, 10], seeds=[0])} == {"cheap", "dear"}
    assert not caplog.messages
    assert {cell.model for cell in cells(models=models, budgets=[1, 100], seeds=[0])} == {"cheap"}
    assert caplog.messages == ["dear has the budgets 5, 10, and the grid 1, 100: it is left out"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seeds": []}, "models.dear.seeds is []: give one or more different ones"),
        ({"budgets": ["few"]}, "models.dear.budgets is ['few']: give numbers"),
        ({"budget": [5]}, "models.dear has budget: as a mapping it has all"),
    ],
)
def test_what_a_model_cannot_say_of_the_grid_is_an_error(cells: Cells, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        cells(models={"dear": {"all": [], **wrong}}, budgets=[1, 10], seeds=[0, 1])
    assert said in str(caught.value)


def test_a_sweep_in_a_model_makes_one_of_each(cells: Cells) -> None:
    found = cells(models={"d": ["encoder=small", "fusion=gw,lw", "trainer.lr=0.1,0.2"], "other": ["fusion=mean"]})
    assert [cell.model for cell in found] == ["d gw lr=0.1", "d gw lr=0.2", "d lw lr=0.1", "d lw lr=0.2", "other"]
    assert heads(found) == ["GlobalWeighted"] * 2 + ["LocalizedWeighted"] * 2 + ["UniformMean"]
    assert [cell.config.trainer.lr for cell in found][:4] == [0.1, 0.2, 0.1, 0.2]


def test_a_sweep_in_a_task_makes_one_of_each(cells: Cells) -> None:
    found = cells(models={"m": []}, tasks={"t": ["task=segmentation,classification"]})
    assert [cell.task for cell in found] == ["t segmentation", "t classification"]
    assert [cell.config.task.path.rpartition(".")[2] for cell in found] == ["Segmentation", "Classification"]


def test_a_setting_after_a_sweep_in_a_model_is_kept_in_every_variant(cells: Cells) -> None:
    found = cells(models={"d": ["fusion=gw,lw", "fusion.projection_dim=24"]})
    assert [cell.config.fusion["projection_dim"] for cell in found] == [24, 24]


def test_sweeps_on_the_command_line_make_models_tasks_budgets_and_seeds(cells: Cells) -> None:
    found = cells("fusion=gw,lw", "task=classification,segmentation", "budget=10,100", "seed=range(2)", recipe=[])
    assert places(found) == [
        (task, model, budget, seed)
        for task in ("classification", "segmentation")
        for model in ("gw", "lw")
        for budget in (10.0, 100.0)
        for seed in (0, 1)
    ]
    assert heads(found) == (["GlobalWeighted"] * 4 + ["LocalizedWeighted"] * 4) * 2


def test_sweeps_on_the_command_line_multiply_the_models_and_tasks_that_are_configured(cells: Cells) -> None:
    found = cells(
        "trainer.lr=0.1,0.2", "data.size=16,32", models={"a": ["fusion=gw"], "b": ["fusion=lw"]}, tasks={"t": []}
    )
    assert [(cell.task, cell.model) for cell in found] == [
        (f"t size={size}", f"{model} lr={rate}") for size in (16, 32) for model in ("a", "b") for rate in (0.1, 0.2)
    ]
    assert [(c.config.data["size"], c.config.trainer.lr) for c in found[:3]] == [(16, 0.1), (16, 0.2), (16, 0.1)]


def test_what_is_said_once_on_the_command_line_is_of_every_run_and_comes_last(cells: Cells) -> None:
    found = cells(
        "trainer.lr=0.5", "fusion.projection_dim=8", models={"a": ["trainer.lr=0.1"], "b": ["fusion=lw"]}, seeds=[0, 1]
    )
    assert len(found) == 4
    assert {cell.config.trainer.lr for cell in found} == {0.5}
    assert {cell.config.fusion["projection_dim"] for cell in found} == {8}


def test_budgets_and_seeds_of_the_command_line_take_the_place_of_those_configured(cells: Cells) -> None:
    found = cells("budget=25", "seed=5", budgets=[10, 100], seeds=[0, 1])
    assert places(found) == [("task", "model", 25.0, 5)]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["decoder=upernet", "decoder.channels=32"], ["decoder=linear"], ["decoder=linear"]),
        (["decoder.channels=32"], ["decoder=upernet"], ["decoder.channels=32", "decoder=upernet"]),  # of none before
        (["fusion=gw", "fusion.projection_dim=8"], ["fusion=gw", "fusion.tau=2"], ["fusion=gw", "fusion.tau=2"]),
        (["decoder=upernet"], ["decoder.channels=32"], ["decoder=upernet", "decoder.channels=32"]),
        (["adapter=lora", "encoder.adapter.rank=4"], ["adapter=deflect"], ["adapter=deflect"]),
        (["encoder=vit", "encoder.adapter.rank=4"], ["encoder=small"], ["encoder=small"]),
        (["encoder=vit", "encoder.norm=true"], ["adapter=lora"], ["encoder=vit", "encoder.norm=true", "adapter=lora"]),
        (["trainer.lr=1", "seed=3"], ["trainer.lr=2"], ["seed=3", "trainer.lr=2"]),
        (["+trainer.x=1"], ["trainer.x=2"], ["trainer.x=2"]),
        (["fusion=moe", "fusion.experts=4", "fusions=1"], ["fusion=gw"], ["fusions=1", "fusion=gw"]),
    ],
)
def test_a_later_choice_of_a_group_forgets_what_was_said_of_it_before(
    before: list[str], after: list[str], expected: list[str]
) -> None:
    assert merged(before, after) == expected


def test_a_model_with_another_group_forgets_the_recipes_settings_of_it(cells: Cells) -> None:
    recipe = ["trainer=quick", "decoder=upernet", "decoder.channels=8", "trainer.lr=0.25"]
    found = cells(models={"plain": [], "linear": ["decoder=linear"]}, recipe=recipe)
    assert found[0].config.decoder["channels"] == 8
    assert "channels" not in found[1].config.decoder
    assert [cell.config.trainer.lr for cell in found] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"models": {"bad": ["fusion=gww"]}, "tasks": {"t": []}}, ["bad, t: no fusion=gww", "there is concat, gw,"]),
        ({"models": {"m": []}, "tasks": {"t": ["task=segmentatoin"]}}, ["m, t: no task=segmentatoin", "regression"]),
        ({"models": {"m": ["fusion.projecton_dim=3"]}, "tasks": {"t": []}}, ["m, t: no setting", "projection_dim"]),
        ({"models": {"m": "fusion=gw"}}, ["models.m must be a list of overrides"]),
        ({"tasks": {"t": [3]}}, ["tasks.t must be a list of overrides"]),
        ({"models": {"m": ["fusion=gw,,lw"]}}, ["fusion=gw,,lw", "not an override that makes a grid"]),
        ({"seeds": [0, 1, 0]}, ["seeds is [0, 1, 0]: give one or more different ones"]),
        ({"budgets": [10, 10.0]}, ["budgets is [10.0, 10.0]: give one or more different ones"]),
        ({"budgets": []}, ["budgets is []"]),
        ({"budgets": ["ten"]}, ["budget", "ten", "number"]),
        ({"seeds": ["one"]}, ["seed", "one", "number"]),
    ],
)
def test_what_cannot_be_a_grid_is_one_line_that_says_where(
    cells: Cells, values: dict[str, object], said: list[str]
) -> None:
    with pytest.raises(UserError) as refused:
        cells(**values)
    assert "\n" not in str(refused.value)
    assert all(words in str(refused.value) for words in said), str(refused.value)


@pytest.mark.parametrize("word", ["seed=1,1", "budget=10,10.0"])
def test_doubles_on_the_command_line_are_refused(cells: Cells, word: str) -> None:
    with pytest.raises(UserError, match="give one or more different ones"):
        cells(word)


def test_a_budget_that_is_no_number_is_refused(cells: Cells) -> None:
    with pytest.raises(UserError, match=r"budget is \['half'\]: give numbers"):
        cells("budget=half")


@pytest.fixture
def key(shared: Make, cells: Cells) -> Callable[..., str]:
    """The name of the one run that these words make."""
    made = shared()

    def find(*words: str, model: str = "m", base: tuple[str, ...] = ("encoder=small",)) -> str:
        (cell,) = cells(*words, models={model: list(base)})
        return made.key(cell)

    return find


def test_the_same_settings_have_the_same_key_and_a_name_does_not_matter(key: Callable[..., str]) -> None:
    first = key()
    assert len(first) == 16
    assert key(model="another name") == first
    assert key("trainer.lr=0.004") == first  # what it is without saying so


def test_settings_that_say_where_and_how_fast_do_not_change_the_key(key: Callable[..., str]) -> None:
    passing = ["resume=true", "overwrite=true", "trainer.workers=3", "trainer.tensorboard=true"]
    assert {key(word) for word in passing} == {key()}


@pytest.mark.parametrize("word", ["run=elsewhere", "features=some.zarr"])
def test_what_the_grid_says_itself_cannot_be_set(cells: Cells, word: str) -> None:
    with pytest.raises(UserError, match=f"{word.partition('=')[0]} is set, but the grid says it: give "):
        cells(word)


@pytest.mark.parametrize("word", ["seed=3", "budget=10"])
def test_a_model_cannot_have_a_seed_or_budget_of_its_own(cells: Cells, word: str) -> None:
    with pytest.raises(UserError, match=r"is set, but the grid says it: give (seeds|budgets)=... instead"):
        cells(models={"m": [word]})


def test_what_changes_the_result_changes_the_key(key: Callable[..., str]) -> None:
    words = [
        "seed=1",
        "budget=50",
        "fusion.projection_dim=24",
        "fusion=lw",
        "decoder=upernet",
        "task=classification",
        "trainer.lr=0.1",
        "trainer.max_steps=4",
        "data.splits.train.length=31",
        "data.splits.test.length=10",
        "data.seed=1",
        "encoder.seed=1",
        "encoder.timesteps=[21]",
        "encoder.backbone.weights=random",
    ]
    found = [key(), *map(key, words)]
    assert len(set(found)) == len(found)


def test_another_file_of_weights_of_the_same_name_is_another_model(tmp_path: Path, cells: Cells, shared: Make) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()

    def settings() -> dict[str, object]:
        grid.file_digest.cache_clear()  # as in another process
        (cell,) = cells(models={"m": ["encoder=unconditional", f"encoder.backbone.weights={weights}"]})
        return cell.settings()["encoder"]

    (weights / "a.bin").write_bytes(b"one")
    one = settings()
    assert settings() == one
    (weights / "a.bin").write_bytes(b"two")
    two = settings()
    (weights / "a.bin").rename(weights / "b.bin")
    assert len({grid.digest(values) for values in (one, two, settings())}) == 3


def test_weights_that_were_moved_are_the_same_model(tmp_path: Path, cells: Cells) -> None:
    found = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.bin").write_bytes(b"one")
        (cell,) = cells(models={"m": ["encoder=unconditional", f"encoder.backbone.weights={tmp_path / name}"]})
        found.append(grid.digest(cell.settings()))
    assert found[0] == found[1]


def test_the_key_does_not_depend_on_where_the_command_is_started(
    key: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = key()
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "notes.txt").write_text("a folder that happens to have the name of the shipped weights")
    monkeypatch.chdir(tmp_path)
    assert key() == first


@pytest.mark.parametrize("encoder", ["small", "small_vit"])
def test_runs_on_shipped_weights_are_of_these_weights(
    encoder: str, key: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version of the package may ship others under the same name: its runs are none of this one's."""
    word = f"encoder={encoder}"
    before, random = key(word), key(word, "encoder.backbone.weights=random")
    file = tmp_path / "other.safetensors"
    file.write_bytes(os.urandom(9))
    make = compose("train", [word]).encoder["backbone"].target
    monkeypatch.setitem(vars(make), "ships", {"small": file})
    assert key(word) != before
    assert key(word, "encoder.backbone.weights=random") == random


def test_a_weights_file_that_is_a_single_file_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    def told(name: str, content: bytes) -> object:
        (tmp_path / name).write_bytes(content)
        grid.file_digest.cache_clear()
        return grid.with_digests({"backbone": {"weights": str(tmp_path / name)}, "other": [{"weights": "small"}]})

    assert told("a.safetensors", b"one") != told("a.safetensors", b"two")
    assert told("a.safetensors", b"two") == told("b.safetensors", b"two")
    assert told("a.safetensors", b"two")["other"] == [{"weights": "small"}]  # type: ignore[index]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seeds": [0.5]}, "seeds is \\[0.5\\]: give numbers"),
        ({"budgets": [0]}, "budget"),
        ({"budgets": [200]}, "budget"),
        ({"budgets": [float("nan")]}, "budget"),
        ({"recipe": [3]}, "recipe must be a list of overrides"),
        ({"recipe": ["trainer=quick", None]}, "recipe must be a list of overrides"),
        ({"models": {"m": ["data.size=32"]}}, "models.m sets data.size: models are compared on the same data"),
        ({"models": {"m": ["task.absent=zero"]}}, "models.m sets task.absent: models are compared on the same data"),
    ],
)
def test_what_would_fail_in_every_run_is_refused_before_the_first(cells: Cells, values: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        cells(**values)
