"""The studies of a comparison: which there are, what they are called, and that one that fails stops no other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import satdifuser.study.probe
from satdifuser.compare.command import _composed
from satdifuser.compare.grid import Cell
from satdifuser.compare.plan import Planned, plan
from satdifuser.compare.shared import Shared
from satdifuser.compare.study import Study, cka_config, do, name_of, probe_config, show, studies
from satdifuser.config import compose
from satdifuser.errors import UserError
from satdifuser.report.depth.content import Probed

Cells = Callable[..., list[Cell]]
Make = Callable[..., Shared]
VIT = ["encoder=small_vit", "fusion=mean", "fusion.projection_dim=16"]
CONFIG = compose("compare", ["store.dtype=float32"])
TASKS = {"images": ["task=classification"], "pixels": ["task=segmentation"]}


@pytest.fixture
def grid(cells: Cells, shared: Make, small_model: list[str], unet_model: list[str]) -> Callable[..., Any]:
    """The config, plan and shared part of a grid of two heads on one encoder, a ViT, and a net that trains."""

    def make(**values: Any) -> tuple[Any, list[Planned], Shared]:
        models = {
            "UNet gw": small_model,
            "UNet lw": [*small_model, "fusion=lw"],
            "ViT": VIT,
            "net": unet_model,
        }
        given = {"models": models, "tasks": TASKS, "budgets": [50, 100], "seeds": [3, 1], **values}
        owner = shared()
        found = cells(**{key: value for key, value in given.items() if key not in ("probe", "cka")})
        return CONFIG.but(**given), plan(found, owner), owner

    return make


def asked(found: Sequence[Study]) -> list[tuple[str, str]]:
    return [(str(study), study.cell.task) for study in found]


def test_a_comparison_that_asks_for_none_has_none(grid: Callable[..., Any]) -> None:
    assert studies(*grid()) == []
    assert studies(*grid(probe=False, cka=False)) == []


def test_each_task_and_store_is_probed_once_with_the_grids_budgets_and_seeds(grid: Callable[..., Any]) -> None:
    found = studies(*grid(probe={"views": ["max"]}))
    names = ("probes of UNet", "probes of ViT")
    assert asked(found) == [(name, task) for task in TASKS for name in names]
    for study in found:
        settings: Any = study.settings
        assert settings.budgets == [50.0, 100.0]
        assert settings.seeds == [3, 1]
        assert settings.probe.views == ["max"]
        assert settings.features == str(study.needs)
        assert settings.task == study.cell.config.task
        assert study.cell.budget == 100
    assert found[0].models == ("UNet gw",) * 4 + ("UNet lw",) * 4
    assert len({study.folder for study in found}) == 4
    assert found[0].needs == found[2].needs  # both tasks have the same images


def test_a_probe_is_named_by_what_it_is_and_not_by_how_fast_it_is(grid: Callable[..., Any]) -> None:
    folders = [studies(*grid(probe=given))[0].folder for given in (True, {"workers": 2, "batch_size": 3}, {"bins": 5})]
    assert folders[0] == folders[1] != folders[2]
    assert studies(*grid(probe=True, budgets=[100]))[0].folder not in folders


def test_what_trains_is_compared_with_its_origin_and_stores_with_each_other(grid: Callable[..., Any]) -> None:
    config, planned, owner = grid(cka={"samples": 64})
    found = studies(config, planned, owner)
    assert asked(found) == [
        ("likeness of net on images, finetuned and its origin", "images"),
        ("likeness of net on pixels, finetuned and its origin", "pixels"),
        ("likeness of UNet and ViT", "images"),
    ]
    for study in found[:2]:
        settings: Any = study.settings
        assert (study.cell.budget, study.cell.seed) == (100, 3)
        assert settings.first == str(study.needs)
        assert settings.second is None
        assert settings.cka.modules == "all"
        assert study.needs in [run.folder for run in planned if run.cell.model == "net"]
    pair: Any = found[2].settings
    assert [Path(pair.first), Path(pair.second)] == [found[2].needs, found[2].second]
    assert (pair.cka.modules, pair.cka.samples) == ("taps", 64)


def test_models_in_another_order_do_not_get_the_rows_of_the_other_one(grid: Callable[..., Any]) -> None:
    """What is saved has the first model's places as rows, and the names come from the grid."""
    config, planned, owner = grid(cka=True)
    (one,) = (study for study in studies(config, planned, owner) if study.second is not None)
    (other,) = (study for study in studies(config, planned[::-1], owner) if study.second is not None)
    assert one.names == other.names[::-1]
    assert one.folder != other.folder


def test_pairs_are_compared_as_their_stores_keep_them(grid: Callable[..., Any]) -> None:
    config, planned, owner = grid(cka=True)
    for keep, pools in (("max", ["max"]), ("maps", ["mean"]), ("latents", [])):
        found = studies(config.but(store=config.store.but(keep=keep)), planned, owner)
        assert [study.settings.cka.pool for study in found if study.second is not None] == pools


def test_studies_change_no_key_of_a_run(grid: Callable[..., Any]) -> None:
    plans = [grid(**given)[1] for given in ({}, {"probe": True, "cka": True})]
    assert [run.folder for run in plans[0]] == [run.folder for run in plans[1]]


def test_one_that_fails_is_told_and_the_others_go_on(
    grid: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, planned, owner = grid(probe=True)
    found = studies(config, planned, owner)
    for study in found[:3]:
        study.needs.mkdir(parents=True, exist_ok=True)
    waits = dataclasses.replace(found[3], needs=found[3].needs.with_name("missing.zarr"))

    def probed(settings: Any) -> Probed:
        if settings.task.label == "Segmentation":
            raise RuntimeError("out of <memory>\nand more")
        return Probed("encoder", "classification", "accuracy", "test", 9, (3, 1), ())

    monkeypatch.setattr(satdifuser.study.probe, "probed", probed)
    looked = do([*found[:3], waits], owner)
    assert [(one.model, one.task) for one in looked.depths.probes] == [("UNet", "images"), ("ViT", "images")]
    (failure,) = looked.failures
    assert (failure.model, failure.task, failure.budget) == ("probes of UNet", "pixels", 100)
    assert failure.error == "RuntimeError: out of <memory>"
    assert "probes of UNet, pixels: FAILED" in capsys.readouterr().err


def test_a_dry_run_says_what_is_done(grid: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = studies(*grid(probe=True))
    found[1].folder.mkdir(parents=True)
    (found[1].folder / "probe.json").write_text("{}")
    show(found)
    said = capsys.readouterr().out
    assert "4 studies after the runs" in said
    assert said.count("to do") == 3
    assert said.count("done") == 1
    show([])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("overrides", "probe", "cka"),
    [
        ([], False, False),
        (["probe=true"], True, False),
        (["probe=default", "cka=true", "cka.pool=max"], True, True),
        (["probe=null", "cka=false"], False, False),
        (["probe={views: [max]}"], True, False),
    ],
)
def test_studies_are_asked_for_by_true_null_or_their_settings(overrides: list[str], probe: bool, cka: bool) -> None:
    config = _composed(overrides, [])
    found, alike = probe_config(config), cka_config(config)
    assert (found is not None, alike is not None) == (probe, cka)
    if "cka.pool=max" in overrides:
        assert alike is not None
        assert alike.pool == "max"
    if "probe={views: [max]}" in overrides:
        assert found is not None
        assert (found.views, found.neighbours) == (["max"], 5)


def test_a_wrong_setting_of_a_study_is_told_before_any_work() -> None:
    with pytest.raises(UserError, match=r"probe\.neighbors.*neighbours"):
        probe_config(_composed(["probe={neighbors: 5}"], []))
    with pytest.raises(UserError, match=r"cka\.batch"):
        cka_config(_composed(["cka={batch: 2}"], []))


def test_models_of_one_encoder_are_called_by_what_their_names_share() -> None:
    def named(*names: str) -> str:
        return name_of([SimpleNamespace(model=name) for name in names])  # type: ignore[misc]

    assert named("MoCo + gw", "MoCo + lw") == "MoCo"
    assert named("a b c", "x b c") == "b c"
    assert named("gw", "lw", "lw", "moe") == "gw and 2 more"  # it is not of gw alone
    assert named("alone here") == "alone here"


def test_spearman_is_that_of_the_ranks() -> None:
    from satdifuser.compare.depths import rank_correlation

    random = np.random.default_rng()
    for ties in (False, True):
        a, b = random.normal(size=30), random.normal(size=30)
        if ties:
            a, b = np.round(a), np.round(b)
        ranks = [[(1 + 2 * np.sum(x < one) + np.sum(x == one)) / 2 for one in x] for x in (a, b)]
        assert rank_correlation(list(a), list(b)) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_weights_are_told_over_the_equal_share_of_what_their_softmax_runs_over() -> None:
    from satdifuser.compare.depths import equal_shares
    from satdifuser.report.content import Insight

    random = np.random.default_rng()
    taps = {8: ("mid",), 4: ("up0", "up1", "up2")}
    whole = random.dirichlet(np.ones(8))
    together = {8: whole[:2].reshape(2, 1), 4: whole[2:].reshape(2, 3)}
    apart = {stride: random.dirichlet(np.ones(2 * len(t))).reshape(2, -1) for stride, t in taps.items()}
    for weights, counts in ((together, {8: 8, 4: 8}), (apart, {8: 2, 4: 6})):
        found = equal_shares(Insight("gw", "images", (21, 61), taps, weights))
        assert len(found) == 8
        for stride, names in taps.items():
            for row, step in enumerate((21, 61)):
                for column, tap in enumerate(names):
                    assert found[tap, step] == pytest.approx(weights[stride][row, column] * counts[stride])


def test_families_differ_in_nothing_but_decoder_and_depth(cells: Cells, shared: Make) -> None:
    from satdifuser.compare.depths import decoder_names, family_of, fed_by

    vit, owner = ["encoder=small_vit", "fusion=mean"], shared()
    models = {
        "blocks": [*vit, "encoder.blocks=[2]", "decoder=linear"],
        "taps": [*vit, "encoder.blocks=[2,5]", "select.taps=[blocks.5]", "decoder=upernet"],
        "depths": [*vit, "select.depths=[1]", "decoder=upernet", "decoder.channels=32"],
        "all": [*vit, "decoder=linear"],
        "wide": [*vit, "encoder.blocks=[2]", "fusion.projection_dim=32"],
        "lora": [*vit, "encoder.blocks=[2]", "adapter=lora"],
    }
    found = {cell.model: cell for cell in cells(models=models, tasks={"pixels": ["task=segmentation"]})}
    fed = {model: fed_by(cell, owner) for model, cell in found.items()}
    assert fed["blocks"] == fed["wide"] == fed["lora"] == (2, "blocks.2")
    assert fed["taps"] == (5, "blocks.5")
    assert fed["depths"] == (1, "blocks.1")
    assert fed["all"] is None
    families = {model: family_of(cell) for model, cell in found.items()}
    assert families["blocks"] == families["taps"] == families["depths"] == families["all"]
    assert len(set(families.values())) == 3
    names = decoder_names([cell.config.decoder for cell in found.values()])
    assert set(names.values()) == {"linear", "upernet channels=512", "upernet channels=32"}
