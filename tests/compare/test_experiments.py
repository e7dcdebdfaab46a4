"""The grids that ship, and one of a user's own that takes its models from one of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from satdifuser.compare.grid import expand
from satdifuser.config import compose, groups

EXTRACTION = ["released", "inversion", "epsilon", "sample"]
PLAIN = "A satellite image"
# task, batch, weight decay, what is white (of reflectance, or of what is from 0 to 1), side, prompt, augmented
RELEASED = {
    "m-bigearthnet": ("MultiLabel", 64, 0.0, 0.4095, 256, PLAIN, True),
    "m-eurosat": ("Classification", 32, 0.0, 0.4095, 256, PLAIN, False),
    "m-chesapeake": ("Segmentation", 64, 1e-4, 1.0, 256, f"{PLAIN} of Cheasapeake landcovers", False),
    "m-nz-cattle": ("Segmentation", 16, 0.0, 1.0, 512, f"{PLAIN} of New Zealand cattles", False),
}


@pytest.mark.parametrize("name", [name for name in groups()["experiment"] if name != "transfer"])  # that is in parts
def test_every_grid_that_ships_has_runs_of_different_settings(name: str) -> None:
    config = compose("compare", [f"experiment={name}"])
    config = config.but(seeds=config.seeds[:1], budgets=sorted({config.budgets[0], config.budgets[-1]}))
    cells = expand(config, [] if config.tasks else ["task=segmentation"])
    assert len({cell.model for cell in cells}) >= len(config.models) >= 3
    seen = [cell.settings() for cell in cells]
    assert all(one not in seen[:place] for place, one in enumerate(seen))
    whole = len({cell.task for cell in cells}) * len({c.model for c in cells}) * len(config.budgets)
    dear = [one for one in config.models.values() if isinstance(one, dict) and one.get("budgets")]
    assert whole - len(dear) <= len(cells) <= whole


@pytest.mark.parametrize("paper", [False, True])
def test_the_released_recipe_is_that_of_each_data_set(paper: bool) -> None:
    """The facts of the released code's configuration files and loaders, and what the paper's text says instead."""
    config = compose("compare", ["experiment=satdifuser_paper" if paper else "experiment=satdifuser"])
    config = config.but(models={name: given for name, given in config.models.items() if "DiffusionSat" in name})
    cells = expand(config, ["seed=0"])
    assert {(cell.task, cell.model) for cell in cells} == {
        (task, f"DiffusionSat {head}") for task in RELEASED for head in ("gw", "lw", "moe")
    }
    for cell in cells:
        kind, batch, decay, high, side, prompt, augmented = RELEASED[cell.task]
        trainer, encoder = cell.config.trainer, cell.config.encoder
        assert (cell.config.data.label, cell.config.data["task"], cell.config.task.label) == (
            "GeoBench",
            cell.task,
            kind,
        )
        assert (trainer.batch_size, trainer.patience, trainer.epochs, trainer.warmup_epochs) == (batch, 10, 40, 5)
        assert (trainer.lr, trainer.min_lr, trainer.warmup_from) == (1e-2, 1e-5, 2e-5)
        assert (trainer.schedule, trainer.last_batch, trainer.eval_every) == ("epoch", "keep", None)
        assert (trainer.optimizer, trainer.weight_decay) == (("adamw", decay or 0.01) if paper else ("adam", decay))
        prepare = encoder["prepare"]
        made = prepare.build()
        read = [made.sensor.names[i] for i in made.sensor.index(made.bands)]
        assert read == (["red", "green", "blue"] if high == 1.0 else ["B04", "B03", "B02"])
        assert (made.low, made.high) == (0.0, high)
        assert (prepare["mean"], prepare["std"], prepare["size"], encoder["image_size"]) == (0.5, 0.5, side, side)
        assert [encoder[key] for key in ("compat", "mode", "prediction", "posterior")] == EXTRACTION
        assert (encoder["timesteps"], encoder["steps"]) == ([1, 100, 200] if paper else [21, 61, 161], 50)
        assert encoder["backbone"]["prompt"] == prompt
        assert ("512" in encoder["backbone"]["weights"]) == (side == 512)
        assert cell.config.fusion["init"] == "msra"
        assert cell.config.fusion.get("released", False) == (not paper and not cell.model.endswith("gw"))
        assert cell.config.fusion["projection_dim"] == 384
        if cell.model.endswith("moe"):
            assert cell.config.fusion["warmup_steps"] == (500 if kind == "Segmentation" else 300)
        if kind == "Segmentation":
            decoder = cell.config.decoder
            assert (decoder.label, decoder["channels"], decoder["norm"]) == ("UPerNet", 512, "batch")
            assert (cell.config.task["absent"], cell.config.task["ignore"]) == ("zero", None)
        augmentation = cell.config.augmentation
        assert (augmentation is not None) == augmented
        if augmentation is not None:
            assert [augmentation[key] for key in ("probability", "rotation", "hue", "unit")] == [0.5, 90.0, 0.1, 0.4095]


def test_a_grid_of_ones_own_takes_models_from_one_that_ships_and_adds_its_tasks(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "m_eurosat.yaml").write_text("defaults: [synthetic]\nsize: 32\n")
    gone = "".join(f"  {name}: null\n" for name in RELEASED)
    (tmp_path / "experiment" / "geobench.yaml").write_text(
        "# @package _global_\n"
        "defaults: [satdifuser, _self_]\n"
        f"tasks:\n  my-eurosat: [data=m_eurosat, task=classification, decoder=linear]\n{gone}"
    )
    folders = [str(tmp_path)]
    cells = expand(compose("compare", ["experiment=geobench"], folders), ["seed=0"], folders)
    assert {cell.task for cell in cells} == {"my-eurosat"}
    assert {"DiffusionSat gw", "DiffusionSat moe", "CROMA"} <= {cell.model for cell in cells}
    assert all(cell.config.data["size"] == 32 for cell in cells)


def test_the_documented_import_is_the_grids_cell() -> None:
    """A head is scored on what it was trained on, in the words of docs/reproduce.md."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "reproduce.md").read_text()
    command = re.search(r"tools/import_released\.py (.*?)\n    satdifuser eval", page, re.DOTALL)
    assert command is not None
    words = shlex.split(command[1].replace("\\\n", " "))[1:]
    documented = compose("train", words)
    config = compose("compare", ["experiment=satdifuser"])
    config = config.but(models={name: given for name, given in config.models.items() if "DiffusionSat" in name})
    cells = expand(config, ["seed=0"])
    (cell,) = (c for c in cells if (c.model, c.task) == ("DiffusionSat moe", "m-chesapeake"))
    for part in ("encoder", "decoder", "task", "data"):
        assert getattr(documented, part) == getattr(cell.config, part), part
    assert documented.fusion.plain() == {**cell.config.fusion.plain(), "init": "default"}  # first weights, which go
