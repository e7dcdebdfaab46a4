"""The transfer study's grid: which runs it has, and a thinned one on tiny networks and sets, to its report."""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections import Counter
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from satdifuser.cli import main
from satdifuser.compare import grid
from satdifuser.compare.grid import Cell, expand
from satdifuser.config import compose

Array = np.ndarray[Any, Any]
MODELS = ("MoCo", "MAE", "DINO", "Prithvi", "CROMA", "TerraMind", "ImageNet")
POOLED, PLAIN, CASES = (
    ("EuroSAT", "NeuCo-biomass"),
    ("HLS-Burn-Scars", "MADOS", "AI4SmallFarms"),
    ("Sen1Floods11", "PASTIS"),
)
LINES = ("pooled", "", "single", "finetuned", "finetuned-single")


def line(model: str) -> tuple[str, str]:
    """A model and which of its lines a name is of, without its variant."""
    name, _, rest = model.split(" ")[0].partition("-")
    return name, rest


@lru_cache
def cells() -> list[Cell]:
    """Every line of each kind of set, and the frozen ones of the others; of the blocks the last alone."""
    config = compose("compare", ["experiment=transfer", 'depths="[11]"'])
    tasks = {name: dict(given) for name, given in config.tasks.items()}
    for name in PLAIN[::2]:
        tasks[name]["models"] = [*tasks[name]["models"], "!*-finetuned"]
    return expand(config.but(budgets=[10], seeds=[0], tasks=tasks))


def test_the_grid_has_every_run_that_the_study_and_we_say(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose("compare", ["experiment=transfer"])
    assert (config.budgets, config.seeds) == ([10, 100], [0, 1, 2])
    said: list[tuple[str, ...]] = []

    def noted(model: str, task: str, overrides: list[str], *more: Any) -> list[Any]:
        """In the place of a composition, which takes a tenth of a second."""
        said.append((task, *sorted(overrides)))
        return [SimpleNamespace(model=model, task=task)]

    monkeypatch.setattr(grid, "_cells", noted)
    found = expand(config.but(budgets=[10], seeds=[0]))
    runs = Counter(cell.task for cell in found)
    assert runs == dict.fromkeys(POOLED, 7) | dict.fromkeys(PLAIN, 7 * 4) | dict.fromkeys(CASES, 7 * (4 + 2 * 12))
    assert 2 * 3 * sum(runs.values()) == 2940  # docs/reproduce.md
    lines = {task: {line(cell.model) for cell in found if cell.task == task} for task in runs}
    for task in runs:
        kinds = LINES[:1] if task in POOLED else ("", "finetuned") if task in PLAIN else LINES[1:]
        assert lines[task] == {(model, kind) for model in MODELS for kind in kinds}
    assert len(set(said)) == len(found)
    croma = [words for task, *words in said if task == "PASTIS" and "encoder=croma" in words]
    assert [f"select.depths=[{depth}]" for depth in range(12)] == [
        word for words in croma for word in words if word.startswith("select.depths=") and word.count(",") == 0
    ]


@pytest.mark.slow
def test_each_line_is_what_its_name_says() -> None:
    for cell in cells():
        config, (model, kind) = cell.config, line(cell.model)
        adapter = config.encoder["adapter"].label
        assert adapter == ("Full" if "finetuned" in kind else "Frozen"), cell
        read = config.encoder["blocks"] if adapter == "Full" else config.select.depths
        fusion, decoder = config.fusion.label, config.decoder.label
        if kind == "pooled":
            assert (read, fusion, config.pool) == ([-1], "Plain", "mean"), cell
        elif kind.endswith("single"):
            assert len(read) == 1, cell
            assert (fusion, decoder) == ("Levels", "SingleLevel"), cell
        else:
            assert (read, fusion) == ([2, 5, 8, 11], "Levels"), cell
            assert decoder in ("UPerNet", "LightDecoder"), cell
        if model == "TerraMind":
            above = cell.task in ("EuroSAT", "Sen1Floods11")
            named = compose("train", [f"encoder={'terramind_l1c' if above else 'terramind'}"]).encoder
            assert config.encoder["backbone"]["modality"] == named["backbone"]["modality"], cell
            for name in ("bands", "mean", "std"):
                assert config.encoder["prepare"][name] == named["prepare"][name], cell
        assert (config.encoder["backbone"]["image_size"], config.encoder["prepare"]["size"]) == (224, 224)
        assert (config.temporal is not None) == (cell.task == "PASTIS")
        prepare = config.encoder["prepare"].build()
        bands = {"MoCo": 13, "MAE": 13, "DINO": 13, "Prithvi": 6, "CROMA": 12, "ImageNet": 3}
        bands["TerraMind"] = 13 if cell.task in ("EuroSAT", "Sen1Floods11") else 12
        assert len(prepare.inputs) == bands[model], cell  # whatever the set has of them
    singles = [cell for cell in cells() if cell.task == "PASTIS" and line(cell.model) == ("CROMA", "single")]
    assert [cell.config.select.depths for cell in singles] == [[11]]
    seen = [json.dumps(cell.settings(), sort_keys=True, default=str) for cell in cells()]
    assert len(set(seen)) == len(seen)


def test_the_grid_is_thinned_on_the_command_line() -> None:
    fewer = ['depths="[5],[11]"', "seeds=[0]", "budgets=[10]", "~tasks.PASTIS", "~models.TerraMind-single"]
    gone = [f"~tasks.{name}" for name in (*POOLED, *PLAIN)] + [f"~models.{m}{k}" for m in MODELS[:5] for k in LINE_KEYS]
    found = expand(compose("compare", ["experiment=transfer", *fewer, *gone]))
    assert {cell.task for cell in found} == {"Sen1Floods11"}
    assert [cell.model for cell in found] == [
        "TerraMind upernet",
        "TerraMind light",
        "TerraMind-finetuned upernet",
        "TerraMind-finetuned light",
        "TerraMind-finetuned-single blocks=[5]",
        "TerraMind-finetuned-single blocks=[11]",
        "ImageNet upernet",
        "ImageNet light",
        "ImageNet-single depths=[5]",
        "ImageNet-single depths=[11]",
        "ImageNet-finetuned upernet",
        "ImageNet-finetuned light",
        "ImageNet-finetuned-single blocks=[5]",
        "ImageNet-finetuned-single blocks=[11]",
    ]


LINE_KEYS = [f"-{kind}" if kind else "" for kind in LINES]
SMALL = [
    "+encoder.backbone.options.embed_dim=48",
    "+encoder.backbone.options.num_heads=3",
    "encoder.backbone.weights=none",
]
TINY = {
    "MoCo": [*SMALL, "encoder.backbone.channels=13"],
    "TerraMind": SMALL,
}
NARROW = ["fusion.projection_dim=16"]
QUICK = ["trainer=quick", "trainer.max_steps=2", "trainer.batch_size=4"]


def tif(path: Path, bands: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        count, height, width = bands.shape
        shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
        with rasterio.open(path, "w", driver="GTiff", **shape) as file:
            file.write(bands)


def floods(root: Path, side: int = 48) -> None:
    """Sen1Floods11 in its layout, a few chips of it."""
    rng, hand = np.random.default_rng(0), root / "data" / "flood_events" / "HandLabeled"
    for split, count in (("train", 20), ("valid", 6), ("test", 8), ("bolivia", 1)):
        names = [f"{split}_{number}" for number in range(count)]
        table = root / "splits" / "flood_handlabeled" / f"flood_{split}_data.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("".join(f"{name}_S1Hand.tif,{name}_LabelHand.tif\n" for name in names))
        for name in names:
            water = rng.integers(0, 2, (1, 3, 3)).repeat(side // 3, 1).repeat(side // 3, 2)
            optical = rng.integers(200, 900, (13, side, side)) + 1500 * (1 - water)
            tif(hand / "S2Hand" / f"{name}_S2Hand.tif", optical.astype(np.uint16))
            tif(hand / "LabelHand" / f"{name}_LabelHand.tif", water.astype(np.int16))


def places(root: Path, count: int = 30, side: int = 32) -> None:
    """NeuCo-Bench's set in its layout, with how bright a place is as its number."""
    import zarr
    from zarr.storage import ZipStore

    rng = np.random.default_rng(1)
    rows = ["id,label"]
    for number in range(count):
        file = root / "data" / "s2l2a" / "part-000000" / f"{number:07d}.zarr.zip"
        file.parent.mkdir(parents=True, exist_ok=True)
        bright = float(rng.uniform(500, 4000))
        with ZipStore(file, mode="w") as store:
            values = rng.normal(bright, 100, (4, 12, side, side)).astype(np.int16)
            zarr.open_group(store, mode="w", zarr_format=2).create_array("bands", data=values)
        rows.append(f"{number:07d},{bright / 1000}")
    (root / "labels").mkdir()
    (root / "labels" / "biomass_mean__regr.csv").write_text("\n".join(rows))


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("SATDIFUSER_TEST_LONG"), reason="takes minutes: set SATDIFUSER_TEST_LONG=1")
def test_a_thinned_grid_of_tiny_models_runs_from_images_to_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All lines of two models, two blocks, and a set of each kind, read in the layout that it is published in."""
    monkeypatch.chdir(tmp_path)
    floods(tmp_path / "sets" / "sen1floods11")
    places(tmp_path / "sets" / "SSL4EO-S12-downstream")
    whole = compose("compare", ["experiment=transfer", 'depths="[3],[11]"', "folder=sets", "side=32"])
    tasks = {name: dict(given) for name, given in whole.tasks.items() if name in (*POOLED, "Sen1Floods11")}
    scenes = ["data=synthetic", "data.size=32", *[f"data.splits.{k}.length={n}" for k, n in SCENES.items()]]
    tasks["EuroSAT"]["all"] = [*scenes, *[word for word in tasks["EuroSAT"]["all"] if not word.startswith("data")]]
    tasks["NeuCo-biomass"]["all"] += ["data.size=32"]
    tasks["Sen1Floods11"]["all"] += ["data.size=48"]
    models = {
        f"{name}{key}": [*whole.models[f"{name}{key}"], *tiny] for name, tiny in TINY.items() for key in LINE_KEYS
    }
    made = {"models": models, "tasks": tasks, "recipe": [*whole.recipe, *QUICK]}
    made |= {"budgets": [100], "seeds": [0], "resamples": 50, "shown": 2}
    studies = compose("compare", ["experiment=transfer"])
    made |= {name: getattr(studies, name) for name in ("probe", "cka") if getattr(studies, name, None) is not None}
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    text = "# @package _global_\n" + json.dumps(made, default=dict)
    (tmp_path / "mine" / "experiment" / "tiny.yaml").write_text(text)
    assert main(["compare", "--config-dir", "mine", "experiment=tiny", "output=done"]) == 0
    with (tmp_path / "done" / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    ranked = Counter(row["task"] for row in rows)
    assert set(ranked) == set(tasks)
    assert ranked["EuroSAT"] == ranked["NeuCo-biomass"] == len(TINY)
    assert ranked["Sen1Floods11"] == len(TINY) * 8
    assert (tmp_path / "done" / "report.html").is_file()


SCENES = {"train": 24, "val": 8, "test": 12}
