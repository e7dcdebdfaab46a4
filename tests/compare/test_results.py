"""From finished runs to the report: every number against the runs' own files or a computation apart."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from satdifuser.build import build_data, build_model
from satdifuser.compare.content import content_of
from satdifuser.compare.grid import expand
from satdifuser.compare.launch import do
from satdifuser.compare.made import environments
from satdifuser.compare.plan import plan, with_features
from satdifuser.compare.results import Done, Results
from satdifuser.compare.shared import Shared
from satdifuser.engine.predictions import Predictions
from satdifuser.errors import UserError
from satdifuser.report.repeat import command_line

pytestmark = [pytest.mark.xdist_group("done_grid"), pytest.mark.slow]  # all of these tests read its runs

MODELS = ("lw", "moe", "unet")
PLACES = (("pixels", 100.0), ("images", 50.0), ("images", 100.0))


def file_of(run: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "result.json").read_text())
    return found


def runs_of(done_grid: Any, model: str, task: str, budget: float) -> list[Done]:
    return [run for run in done_grid.done if (run.cell.model, run.cell.task, run.cell.budget) == (model, task, budget)]


def test_there_is_a_row_for_each_model_task_and_budget_in_the_order_of_the_grid(done_grid: Any) -> None:
    rows = done_grid.rows
    assert [(row.task, row.budget, row.model) for row in rows] == [
        (task, budget, model) for task, budget in PLACES for model in MODELS
    ]
    assert {row.seeds for row in rows} == {(0, 1)}
    assert [row.training_samples for row in rows] == [30] * 3 + [15] * 3 + [30] * 3


def test_scores_are_those_of_the_runs_and_their_mean_over_the_seeds(done_grid: Any) -> None:
    checked = 0
    for row in done_grid.rows:
        runs = runs_of(done_grid, row.model, row.task, row.budget)
        tests = [file_of(run)["test"] for run in runs]
        assert set(row.scores) == set(tests[0]) - {"loss"}
        for name, estimate in row.scores.items():
            values = [test[name] for test in tests]
            assert estimate.seeds == pytest.approx(values, abs=1e-6)
            assert estimate.value == pytest.approx(np.mean(values), abs=1e-6)
            assert estimate.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-6)
            assert estimate.low <= estimate.value + 1e-9
            assert estimate.high >= estimate.value - 1e-9 or estimate.high >= min(values)
            checked += 1
    assert checked > 18
    spread = [e.deviation for row in done_grid.rows for e in row.scores.values()]
    assert max(spread) > 0.01  # else the seeds say the same and nothing was compared


def test_a_single_seed_has_no_deviation(done_grid: Any) -> None:
    first = [run for run in done_grid.done if run.cell.seed == 0]
    assert {e.deviation for row in Results(first, 50).rows() for e in row.scores.values()} == {None}


def test_every_pair_is_compared_and_corrected_within_its_task_and_budget(done_grid: Any) -> None:
    found = done_grid.comparisons
    expected = [(task, budget, *pair) for task, budget in PLACES for pair in itertools.combinations(MODELS, 2)]
    assert [(c.task, c.budget, c.first, c.second) for c in found] == expected
    monitor = {"pixels": "miou", "images": "accuracy"}
    for one in found:
        metric = file_of(runs_of(done_grid, one.first, one.task, one.budget)[0])["metric"]
        assert metric == monitor[one.task]
        means = [
            np.mean([file_of(run)["test"][metric] for run in runs_of(done_grid, model, one.task, one.budget)])
            for model in (one.first, one.second)
        ]
        assert one.difference == pytest.approx(means[0] - means[1], abs=1e-6)
        assert one.low <= one.high
        assert 0 < one.p <= 1
    for task, budget in PLACES:
        family = sorted((c for c in found if (c.task, c.budget) == (task, budget)), key=lambda c: c.p)
        assert len(family) == 3
        for place, one in enumerate(family):  # Holm: the largest of (tests left) x p so far
            by_hand = max(min(1.0, (3 - i) * family[i].p) for i in range(place + 1))
            ties = [c.adjusted for c in family if c.p == one.p]
            assert min(abs(by_hand - value) for value in ties) < 1e-12
    assert len({one.p for one in found}) > 3


def test_the_p_value_of_a_pair_is_that_of_all_swaps(done_grid: Any) -> None:
    """Classification of 9 samples: all 512 swaps, one by one, of two seeds together."""
    found = done_grid.comparisons
    one = next(c for c in found if (c.task, c.budget, c.first, c.second) == ("images", 100.0, "lw", "unet"))
    right = []
    for model in (one.first, one.second):
        said = [run.predictions() for run in runs_of(done_grid, model, one.task, one.budget)]
        right.append(np.array([p.prediction == p.truth for p in said], float))
    seen = abs(right[0].mean() - right[1].mean())
    hits = 0
    for swap in itertools.product((False, True), repeat=9):
        a, b = np.where(swap, right[1], right[0]), np.where(swap, right[0], right[1])
        hits += abs(a.mean() - b.mean()) >= seen - 1e-9
    assert one.p == pytest.approx(hits / 512)


def test_models_that_share_no_seed_are_not_compared(done_grid: Any) -> None:
    apart = [run for run in done_grid.done if (run.cell.model, run.cell.seed) in (("moe", 0), ("unet", 1), ("lw", 0))]
    assert {(c.first, c.second) for c in Results(apart, 50).comparisons()} == {("lw", "moe")}


def test_a_pair_is_compared_over_the_seeds_that_both_have(done_grid: Any) -> None:
    some = [run for run in done_grid.done if (run.cell.model, run.cell.seed) in (("lw", 0), ("lw", 1), ("unet", 1))]
    (one,) = [c for c in Results(some, 50).comparisons() if (c.task, c.budget) == ("images", 100.0)]
    values = [file_of(runs_of(done_grid, model, "images", 100.0)[1])["test"]["accuracy"] for model in ("lw", "unet")]
    assert one.difference == pytest.approx(values[0] - values[1], abs=1e-6)


@pytest.mark.parametrize("change", ["order", "other"])
def test_runs_that_were_tested_on_other_samples_are_refused(done_grid: Any, tmp_path: Path, change: str) -> None:
    runs = [
        run for run in done_grid.done if run.cell.task == "images" and run.cell.budget == 100 and run.cell.seed == 0
    ]
    folder = tmp_path / "run"
    shutil.copytree(runs[1].folder, folder)
    said = runs[1].predictions()
    ids = said.ids[::-1] if change == "order" else (*said.ids[:-1], "scene-other")
    Predictions(ids, said.prediction, said.truth, said.logits).save(folder / "predictions-test.zarr")
    moved = replace(runs[1], folder=folder)
    for results in (Results([runs[0], moved], 50), Results([moved, runs[0]], 50)):
        with pytest.raises(UserError, match="was tested on other samples than those it is compared with") as refused:
            results.comparisons()
        assert "\n" not in str(refused.value)
        assert "images" in str(refused.value)


def test_the_cost_of_a_stored_model_is_that_of_the_same_model_on_images(done_grid: Any, tmp_path: Path) -> None:
    cells = [cell for cell in expand(done_grid.config) if cell.budget == 100 and cell.seed == 0]
    live = Shared(tmp_path, done_grid.config.store, share_features=False)
    planned = plan([cell for cell in cells if (cell.model, cell.task) == ("moe", "images")], live)
    do(with_features(planned, live), tmp_path / "jobs", threads=1)
    for run in planned:
        assert run.folder is not None
        one = Done(run.cell, run.folder, live.extraction(run.cell), live.facts(run.cell).parameters).cost()
        other = runs_of(done_grid, run.cell.model, run.cell.task, 100.0)[0]
        assert run.cell.config.features is None
        assert other.cell.config.features is not None
        stored = other.cost()
        assert (one.total, one.trainable, one.flops) == (stored.total, stored.trainable, stored.flops)
        assert (one.extraction_seconds, one.feature_bytes) == (None, None)
        assert stored.extraction_seconds is not None
        assert stored.extraction_seconds > 0
        assert stored.feature_bytes == done_grid.shared.extraction(other.cell).bytes > 0
        # the encoder and the head apart, from the model itself
        model = build_model(run.cell.config, build_data(run.cell.config.data, "train"))
        assert model.encoder is not None
        assert stored.total == sum(p.numel() for p in model.parameters())
        assert file_of(other)["cost"]["parameters"] == stored.total - sum(p.numel() for p in model.encoder.parameters())
        assert file_of(other)["cost"]["flops"] < stored.flops
        assert file_of(run_done(run))["test"] == pytest.approx(file_of(other)["test"], abs=1e-4)


def test_an_encoder_that_runs_on_stored_latents_costs_once(done_grid: Any, tmp_path: Path) -> None:
    store = done_grid.config.store.but(keep="latents")
    cells = [cell for cell in expand(done_grid.config) if (cell.model, cell.task) == ("moe", "images")]
    latents = Shared(tmp_path, store)
    (run, *_) = with_features(plan([cell for cell in cells if cell.budget == 100][:1], latents), latents)
    do([run], tmp_path / "jobs", threads=1)
    assert run.folder is not None
    one = Done(run.cell, run.folder, latents.extraction(run.cell), latents.facts(run.cell).parameters).cost()
    other = runs_of(done_grid, "moe", "images", 100.0)[0].cost()
    assert (one.total, one.trainable, one.flops) == (other.total, other.trainable, other.flops)
    assert 0 < one.feature_bytes < other.feature_bytes


def run_done(run: Any) -> Done:
    return Done(run.cell, run.folder, None, 0)


def test_a_store_without_its_note_has_unknown_operations(done_grid: Any) -> None:
    run = replace(runs_of(done_grid, "lw", "images", 100.0)[0], extraction=None)
    cost = run.cost()
    assert (cost.flops, cost.extraction_seconds, cost.feature_bytes) == (None, None, None)
    assert cost.total > cost.trainable > 0


def test_costs_are_means_over_the_seeds(done_grid: Any) -> None:
    for row in done_grid.rows:
        files = [file_of(run) for run in runs_of(done_grid, row.model, row.task, row.budget)]
        seconds = [file["cost"]["training_seconds"] for file in files]
        assert row.cost.training_seconds == pytest.approx(sum(seconds) / 2)
        assert row.cost.trainable == files[0]["trainable_parameters"] == files[1]["trainable_parameters"]
        peaks = [file["cost"]["peak_bytes"] for file in files]
        assert row.cost.peak_bytes == (None if None in peaks else pytest.approx(sum(peaks) / 2, abs=1))
        sizes = [
            (run.folder / "checkpoints" / "best.safetensors").stat().st_size
            for run in runs_of(done_grid, row.model, row.task, row.budget)
        ]
        assert row.cost.checkpoint_bytes == pytest.approx(sum(sizes) / 2, abs=1)


def test_panels_show_the_first_test_samples_with_what_each_model_says_of_them(done_grid: Any) -> None:
    section = done_grid.results.section("pixels", 6)
    panel = section.panel
    assert panel is not None
    data = build_data(done_grid.done[0].cell.config.data, "test")
    assert panel.ids == tuple(data.sample_id(i) for i in range(6))
    assert panel.pictures.shape == (6, 16, 16, 3)
    assert panel.pictures.dtype == np.uint8
    assert list(panel.predictions) == list(MODELS)
    for i in range(6):
        sample = data[i]
        np.testing.assert_array_equal(panel.truth[i], sample["mask"].numpy())
        reflectance = sample["image"].numpy()[[3, 2, 1]].transpose(1, 2, 0)  # B04, B03, B02
        for channel in range(3):  # brighter is never darker
            order = np.argsort(reflectance[..., channel], axis=None)
            shown = panel.pictures[i][..., channel].reshape(-1)[order].astype(int)
            assert (np.diff(shown) >= 0).all()
    assert len({picture.tobytes() for picture in panel.pictures}) == 6
    for model in MODELS:
        first = runs_of(done_grid, model, "pixels", 100.0)[0]
        assert first.cell.seed == 0
        np.testing.assert_array_equal(panel.predictions[model], first.predictions().prediction[:6])
    assert section.test_samples == 9
    assert done_grid.results.section("pixels", 0).panel is None
    images = done_grid.results.section("images", 5).panel
    assert images.truth.tolist() == [int(data[i]["label"]) for i in range(5)]


def test_a_panel_of_more_samples_than_there_are_shows_all(done_grid: Any) -> None:
    panel = done_grid.results.section("images", 50).panel
    assert len(panel.ids) == len(panel.pictures) == len(panel.truth) == 9


def test_insights_are_of_the_largest_budget_and_of_all_seeds(done_grid: Any) -> None:
    results = done_grid.results
    for task in ("pixels", "images"):
        insights = {one.model: one for one in results.section(task, 4).insights}
        assert list(insights) == list(MODELS)
        for model, one in insights.items():
            runs = runs_of(done_grid, model, task, 100.0)
            files = [file_of(run) for run in runs]
            for stride, weights in one.weights.items():
                each = [np.array(file["weights"][str(stride)]["weights"]) for file in files]
                np.testing.assert_allclose(weights, (each[0] + each[1]) / 2, atol=1e-9)
                assert weights.shape == (len(one.timesteps), len(one.taps[stride]))
            counts = np.zeros_like(one.confusion)
            for run in runs:
                said = run.predictions()
                for true, answer in zip(said.truth.flatten().tolist(), said.prediction.flatten().tolist(), strict=True):
                    if task == "images" or true != 255:
                        counts[true, answer] += 1
            np.testing.assert_array_equal(one.confusion, counts)
        assert insights["lw"].timesteps == (21, 161)
        assert insights["unet"].timesteps == (None,)
        assert set(insights["moe"].usage) == set(insights["moe"].taps)
        for usage in insights["moe"].usage.values():
            assert usage.shape == (2, 3)
            np.testing.assert_allclose(usage.sum(1), 1, atol=1e-5)
        for maps in insights["lw"].maps.values():
            assert maps.shape[:2] == (4, 2)
            np.testing.assert_allclose(maps.sum((1, 2)), 1, atol=1e-5)
        assert not insights["lw"].usage
        assert not insights["moe"].maps
        assert not insights["unet"].usage


def test_the_content_holds_all_of_it(done_grid: Any) -> None:
    config = done_grid.config.but(resamples=50, shown=2)
    given = command_line("compare", ["experiment=mine", "title=two words"], ["my_configs"])
    content = content_of(config, done_grid.planned, done_grid.shared, given)
    assert content.title == "Comparison"
    assert content.command == "satdifuser compare --config-dir my_configs experiment=mine 'title=two words'"
    assert [section.name for section in content.sections] == ["pixels", "images"]
    assert (len(content.rows), len(content.comparisons), content.missing) == (9, 9, 0)
    assert list(content.failures) == []
    assert set(content.configurations) == set(itertools.product(MODELS, ("pixels", "images")))
    kept = yaml.safe_load(content.configurations["lw", "images"])
    assert kept["fusion"]["_target_"].endswith("LocalizedWeighted")
    assert content.settings["seeds"] == [0, 1]
    assert len(content.environments) == 1
    assert "time" not in content.environments[0]
    json.dumps(content.settings)


def test_what_is_not_done_is_missing_and_what_failed_is_told(done_grid: Any, tmp_path: Path) -> None:
    planned = list(done_grid.planned)
    planned[0] = replace(planned[0], folder=None, error="no weights")
    failed = tmp_path / "failed"
    failed.mkdir()
    (failed / "failed.json").write_text(json.dumps({"error": "no room", "traceback": ""}))
    planned[1] = replace(planned[1], folder=failed)
    planned[2] = replace(planned[2], folder=tmp_path / "not begun")
    config = done_grid.config.but(resamples=20)
    content = content_of(config, planned, done_grid.shared, "")
    assert [(f.model, f.task, f.budget, f.seed, f.error) for f in content.failures] == [
        ("lw", "pixels", 100.0, 0, "no weights"),
        ("lw", "pixels", 100.0, 1, "no room"),
    ]
    assert content.missing == 1
    row = next(row for row in content.rows if (row.model, row.task, row.budget) == ("moe", "pixels", 100.0))
    assert row.seeds == (1,)


def test_nothing_done_is_a_content_without_rows(done_grid: Any) -> None:
    planned = [replace(run, folder=None, error="no weights") for run in done_grid.planned]
    content = content_of(done_grid.config, planned, done_grid.shared, "")
    assert (list(content.rows), list(content.sections), list(content.comparisons)) == ([], [], [])
    assert len(content.failures) == 18


def test_different_environments_are_each_told_once(done_grid: Any, tmp_path: Path) -> None:
    runs = done_grid.done[:3]
    folder = tmp_path / "run"
    folder.mkdir()
    values = json.loads((runs[0].folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps({**values, "device": "another", "time": "later"}))
    found = environments([*runs, replace(runs[0], folder=folder)])
    assert [one["device"] for one in found] == [values["device"], "another"]


def test_answers_that_cannot_be_read_leave_their_run_out_with_the_reason(done_grid: Any, tmp_path: Path) -> None:
    done = done_grid.done
    broken = tmp_path / "broken"
    shutil.copytree(done[0].folder, broken)
    shutil.rmtree(broken / "predictions-test.zarr" / "truth")
    results = Results([replace(done[0], folder=broken), *done[1:]], 100)
    ((run, reason),) = results.leave_out_unreadable()
    assert run.folder == broken
    assert "cannot be read" in reason
    assert len(results.done) == len(done) - 1
    assert results.rows()


def test_other_truths_of_the_same_samples_are_not_compared(done_grid: Any, tmp_path: Path) -> None:
    first, second = [run for run in done_grid.done if run.cell.task == "images"][:2]
    other = tmp_path / "other"
    shutil.copytree(second.folder, other)
    answers = second.predictions()
    replace(answers, truth=(answers.truth + 1) % 3).save(other / "predictions-test.zarr")
    results = Results([first, replace(second, folder=other)], 100)
    ((run, reason),) = results.leave_out_unreadable()
    assert run.folder == other
    assert "was tested on other samples" in reason


def test_a_run_from_before_a_metric_existed_has_it_in_the_report(done_grid: Any, tmp_path: Path) -> None:
    new = runs_of(done_grid, "lw", "images", 100.0)
    old = [replace(run, folder=tmp_path / str(number)) for number, run in enumerate(new)]
    for before, after in zip(new, old, strict=True):
        shutil.copytree(before.folder, after.folder)
        found = file_of(after)
        del found["test"]["released_f1"]
        (after.folder / "result.json").write_text(json.dumps(found))
    rows = [Results(runs, 50).rows()[0] for runs in (new, old)]
    assert rows[0].scores == rows[1].scores
    assert rows[1].scores["released_f1"].value == pytest.approx(
        np.mean([file_of(run)["test"]["released_f1"] for run in new]), abs=1e-6
    )


def test_models_whose_task_has_other_settings_are_not_compared(done_grid: Any) -> None:
    runs = [run for run in done_grid.done if run.cell.task == "pixels"]
    other = next(run for run in runs if run.cell.model == "unet")
    config = other.cell.config.but(task=other.cell.config.task.but(absent="zero"))
    mixed = [replace(run, cell=replace(run.cell, config=config)) if run is other else run for run in runs]
    results = Results(mixed, 50)
    ((out, why),) = results.leave_out_unreadable()
    assert out.folder == other.folder
    assert "has other settings of task= than those it is compared with" in why
    assert len(results.done) == len(runs) - 1


def test_classes_that_are_ignored_are_in_no_confusion(done_grid: Any) -> None:
    runs = [run for run in done_grid.done if run.cell.task == "pixels" and run.cell.model == "lw"]
    task = runs[0].cell.config.task.but(ignore="water")
    mine = [replace(run, cell=replace(run.cell, config=run.cell.config.but(task=task))) for run in runs]
    all_of, some_of = (Results(some, 50) for some in (runs, mine))
    whole, part = (results.section("pixels", 0).insights[0].confusion for results in (all_of, some_of))
    water = some_of.task("pixels").labels.classes.index("water")
    assert whole[water].sum() > 0
    assert part[water].sum() == 0
    np.testing.assert_array_equal(np.delete(part, water, 0), np.delete(whole, water, 0))
