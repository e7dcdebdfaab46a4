"""What runs share: features that are extracted once, what that took, and encoders that cannot be made."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.build import build_data, build_encoder
from satdifuser.commands import extract
from satdifuser.compare.grid import Cell
from satdifuser.compare.plan import plan, with_features
from satdifuser.compare.shared import Shared, stores_to_make
from satdifuser.data.batches import collate
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore

Cells = Callable[..., list[Cell]]
Make = Callable[..., Shared]
VIT = ["encoder=small_vit", "encoder.blocks=last"]


def test_frozen_encoders_are_stored_and_those_that_train_are_not(cells: Cells, shared: Make) -> None:
    made = shared()
    models = {
        "small": ["encoder=small"],
        "unet": ["encoder=unet"],
        "frozen": [*VIT, "adapter=frozen"],
        "deflect": [*VIT, "adapter=deflect"],
        "full": [*VIT, "adapter=full"],
    }
    found = {cell.model: made.stored(cell) for cell in cells(models=models)}
    assert found == {"small": True, "unet": False, "frozen": True, "deflect": False, "full": False}


@pytest.mark.parametrize("encoder", [["encoder=small"], VIT])
def test_two_heads_two_tasks_and_two_seeds_share_one_store(cells: Cells, shared: Make, encoder: list[str]) -> None:
    made = shared()
    found = cells(
        models={"gw": [*encoder, "fusion=gw"], "lw": [*encoder, "fusion=lw"]},
        tasks={"a": ["task=classification"], "b": ["task=segmentation"]},
        seeds=[0, 1],
        budgets=[50, 100],
    )
    assert len({made.key(cell) for cell in found}) == 16
    assert list(stores_to_make(made, found)) == [made.features(found[0])]


def test_other_features_or_data_have_a_store_of_their_own(cells: Cells, shared: Make) -> None:
    made = shared()
    found = cells(
        models={"a": ["encoder=small"], "b": ["encoder=small", "encoder.timesteps=[21]"]},
        tasks={"one": [], "two": ["data.splits.test.length=10"], "three": ["data.seed=1"]},
    )
    assert len(stores_to_make(made, found)) == 6
    assert shared(dtype="float16").features(found[0]) != made.features(found[0])
    assert shared(dtype="float16").key(found[0]) != made.key(found[0])


def test_features_can_be_left_unshared(cells: Cells, shared: Make) -> None:
    made = shared(share_features=False)
    found = cells(models={"a": ["encoder=small"], "b": ["encoder=unet"]})
    planned = plan(found, made)
    assert stores_to_make(made, found) == {}
    assert [run.cell.config.features for run in planned] == [None, None]
    assert with_features(planned, made) == planned
    assert not (made.output / "features").exists()


def test_an_encoder_without_weights_fails_for_its_own_runs_alone(cells: Cells, shared: Make) -> None:
    bad = ["encoder=unconditional", "encoder.backbone.weights=/nowhere"]
    found = cells(models={"bad": bad, "good": ["encoder=small"]}, seeds=[0, 1])
    made = shared()
    with pytest.raises(UserError) as refused:
        build_encoder(found[0].config.encoder)
    planned = plan(found, made)
    assert [run.error for run in planned] == [str(refused.value)] * 2 + [None] * 2
    assert [run.folder is None for run in planned] == [True, True, False, False]
    assert [run.missing for run in planned] == [False, False, True, True]
    assert "/nowhere" in str(refused.value)


def test_an_encoder_that_is_wrong_in_itself_is_built_once(
    cells: Cells, shared: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []

    def build(config: Any) -> torch.nn.Module:
        built.append(config)
        return build_encoder(config)

    monkeypatch.setattr("satdifuser.compare.shared.build_encoder", build)
    bad = ["encoder=unconditional", "encoder.backbone.weights=/nowhere"]
    plan(cells(models={"bad": bad, "good": ["encoder=small"]}, seeds=[0, 1, 2], budgets=[50, 100]), shared())
    assert len(built) == 2
    plan(cells(models={"good": ["encoder=small"]}), shared())  # as in another process: the facts are on disk
    assert len(built) == 2


def test_features_that_cannot_be_made_fail_for_their_runs_alone(
    cells: Cells, shared: Make, small_model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"a": small_model, "b": [*small_model, "encoder.seed=1"], "c": ["encoder=unet"]}
    planned = plan(cells(models=models, seeds=[0, 1]), shared())
    run = extract.run

    def refuse(config: Any) -> Any:
        if config.encoder["seed"] == 1:
            raise UserError("no room on the disk")
        return run(config)

    monkeypatch.setattr(extract, "run", refuse)
    found = with_features(planned, shared())
    assert [run.error for run in found] == [None, None, *["no room on the disk"] * 2, None, None]
    assert [run.missing for run in found] == [True, True, False, False, True, True]


def test_what_an_extraction_took_is_noted_and_it_is_not_made_again(
    cells: Cells, shared: Make, small_model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shared()
    (cell,) = cells(models={"m": small_model})
    assert made.extraction(cell) is None
    made.extract(cell)
    path = made.features(cell)
    assert path is not None
    assert FeatureStore(path).splits == ["train", "val", "test"]
    took = made.extraction(cell)
    assert took is not None
    assert 0 < took.seconds < 600
    assert took.bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) > 0
    assert [file.name for file in path.parent.iterdir()] == [path.name]

    monkeypatch.setattr(extract, "run", lambda config: pytest.fail("extracted again"))
    made.extract(cell)
    shared().extract(cell)
    assert shared().extraction(cell) == took
    shutil.rmtree(path)
    assert shared().extraction(cell) == took  # of runs that are done, the cost is still known


def test_the_operations_of_an_encoder_are_those_of_its_layers(
    cells: Cells, shared: Make, small_model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by hooks on convolutions and linear layers, and by hand for attention."""
    made = shared()
    (cell,) = cells(models={"m": small_model})
    made.extract(cell)
    encoder = build_encoder(cell.config.encoder).eval()
    counted = {"layers": 0, "attention": 0}

    def layer(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weight = module.weight
        places = output.numel() // weight.shape[0]  # each output number is a product with one row of the weight
        counted["layers"] += 2 * places * weight.numel()

    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(layer)
    attention = torch.nn.functional.scaled_dot_product_attention

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        batch, heads, rows, width = query.shape
        counted["attention"] += 2 * batch * heads * rows * key.shape[2] * (width + value.shape[3])
        return attention(query, key, value, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    batch = collate([build_data(cell.config.data, "train")[0]])
    with torch.no_grad():
        encoder(batch["image"], sample_ids=batch["id"])
    took = made.extraction(cell)
    assert took is not None
    assert counted["attention"] > 0
    assert took.flops == sum(counted.values())


def test_the_time_of_an_interrupted_extraction_counts(
    cells: Cells, shared: Make, small_model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shared()
    (cell,) = cells(models={"m": small_model})
    clock, run = [100.0], extract.run

    class Time:
        @staticmethod
        def perf_counter() -> float:
            return clock[0]

    def interrupted(config: Any) -> None:
        clock[0] += 7.0
        raise KeyboardInterrupt

    def whole(config: Any) -> Any:
        clock[0] += 5.0
        return run(config)

    monkeypatch.setattr("satdifuser.compare.shared.time", Time)
    monkeypatch.setattr(extract, "run", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            shared().extract(cell)
    assert made.extraction(cell) is None
    monkeypatch.setattr(extract, "run", whole)
    made.extract(cell)
    took = made.extraction(cell)
    assert took is not None
    assert took.seconds == pytest.approx(7 + 7 + 5)


def test_the_parameters_of_an_encoder_are_noted(cells: Cells, shared: Make, unet_model: list[str]) -> None:
    made = shared()
    (cell,) = cells(models={"m": unet_model})
    facts = made.facts(cell)
    encoder = build_encoder(cell.config.encoder)
    assert facts.parameters == sum(p.numel() for p in encoder.parameters())
    assert facts.trains
    (file,) = (made.output / "encoders").iterdir()
    assert json.loads(file.read_text())["parameters"] == facts.parameters
    assert shared().facts(cell) == facts


def test_a_run_finds_its_features_in_the_plan(cells: Cells, shared: Make, tmp_path: Path) -> None:
    made = shared()
    (run,) = plan(cells(models={"m": ["encoder=small"]}), made)
    config = run.cell.config
    assert Path(config.features) == made.features(run.cell)
    assert Path(config.run) == run.folder == made.output / "runs" / made.key(run.cell)
    assert config.resume
    assert made.output == tmp_path / "out"


class Shades(torch.nn.Module):
    """An encoder without a single parameter, as in the README."""

    def __init__(self, image_size: int, fail: bool = False) -> None:
        super().__init__()
        self.spec = BankSpec((Tap("shades", None, 0, 2, 1),), "shades", "none", (image_size, image_size))
        self.fail = fail

    def forward(self, images: torch.Tensor, *, sample_ids: Any = None, metadata: Any = None) -> FeatureBank:
        if self.fail:
            raise RuntimeError("out of everything\nand more")
        return FeatureBank(self.spec, {self.spec.find("shades"): images[:, 3:5]})


@pytest.mark.parametrize("fail", [False, True])
def test_an_encoder_without_parameters_is_stored_and_an_unforeseen_error_is_its_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Make, cells: Cells, fail: bool
) -> None:
    module = ModuleType("shades_of_mine")
    monkeypatch.setattr(module, "Shades", Shades, raising=False)
    monkeypatch.setattr(Shades, "__module__", "shades_of_mine")
    monkeypatch.setitem(sys.modules, "shades_of_mine", module)
    (tmp_path / "encoder").mkdir()
    text = f"_target_: shades_of_mine.Shades\nimage_size: ${{data.size}}\nfail: {fail}\n"
    (tmp_path / "encoder" / "shades.yaml").write_text(text)
    made = shared()
    planned = plan(cells(models={"m": ["encoder=shades", "fusion=mean"]}, config_dirs=[str(tmp_path)]), made)
    (run,) = with_features(planned, made)
    if fail:
        assert (run.folder, run.error) == (None, "RuntimeError: out of everything")
    else:
        assert run.missing
        assert made.extraction(run.cell).flops == 0
