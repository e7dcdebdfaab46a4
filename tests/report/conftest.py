"""Made-up comparisons: any number of models, tasks, budgets and seeds, with everything that a report can show."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import zlib
from pathlib import Path

import numpy as np
import pytest

from satdifuser.data.base import Labels
from satdifuser.report.content import (
    Chance,
    Comparison,
    Content,
    Cost,
    Curve,
    Estimate,
    Failure,
    Insight,
    Made,
    Panel,
    Row,
    Section,
)
from satdifuser.report.html import write_report
from satdifuser.tasks import Classification, MultiLabel, Regression, Segmentation

EVIL = '<b>&"x_1%'
MODELS = ("gw on diffusion", "lw on diffusion", "moe on diffusion", "deflect ViT-S", EVIL)
TASKS = {
    "segmentation": (Segmentation, ("miou", "accuracy")),
    "classification": (Classification, ("accuracy", "macro_f1")),
    "regression": (Regression, ("r2", "rmse")),
    "multilabel": (MultiLabel, ("micro_f1", "macro_f1")),
}
LABELS = Labels(
    ("water", "forest", "grassland", "farmland", "bare soil", "built-up", "road", "snow & ice"),
    ("#3060a0", "#1b6b2f", "#8fbf5a", "#d9b44a", "#b08968", "#a03c3c", "#606060", "#f0f4f8"),
)
WINNER = ("deflect ViT-S", "segmentation", 100.0)  # the only one that beats all others
TIMESTEPS = (21, 61, 97)
TAPS = {8: ("up_blocks.1.resnets.0", "up_blocks.1.attentions.0"), 4: ("up_blocks.2.resnets.0", "up_blocks.2.resnets.1")}


def _random(*words):
    return np.random.default_rng(zlib.crc32("/".join(map(str, words)).encode()))


def make_row(model, task, budget, seeds, number):
    """Scores that rise with the budget and with the model's number, costs that differ over orders of magnitude."""
    random = _random(model, task, budget)
    scores = {}
    for metric in TASKS[task][1]:
        value = 0.95 - 0.5 / (1 + 0.5 * np.log10(budget) + 0.1 * number) + random.normal(0, 0.01)
        value += 0.2 * ((model, task, budget) == WINNER)
        by_seed = tuple(float(value + random.normal(0, 0.01)) for _ in seeds)
        mean = float(np.mean(by_seed))
        scores[metric] = Estimate(mean, mean - random.uniform(0.01, 0.05), mean + random.uniform(0.01, 0.05), by_seed)
    vit = "ViT" in model
    cost = Cost(
        trainable=int(10 ** random.uniform(4, 6.5)),
        total=int(10 ** random.uniform(7, 8)),
        flops=int(10 ** random.uniform(9, 11)),
        extraction_seconds=None if vit else 312.5,
        training_seconds=float(random.uniform(5, 500)) * (1 + budget / 100),
        peak_bytes=int(10 ** random.uniform(8, 9.5)),
        feature_bytes=None if vit else 853_000_000,
        checkpoint_bytes=int(10 ** random.uniform(5, 7)),
    )
    ended = {"patience": len(seeds) - 1, "max_steps": 1} if vit else {"fitted": len(seeds)}
    return Row(model, task, budget, int(8 * budget), tuple(seeds), scores, cost, ended)


def make_pairs(rows, metric):
    """Every pair of the rows of a task and budget; the larger the difference, the smaller the p."""
    for one, two in itertools.combinations(rows, 2):
        difference = one.scores[metric].value - two.scores[metric].value
        p = float(np.exp(-abs(difference) * 60))
        yield Comparison(
            one.task,
            one.budget,
            one.model,
            two.model,
            difference,
            difference - 0.03,
            difference + 0.03,
            p,
            min(1, 3 * p),
        )


HEADS = {"lw": "LocalizedWeighted", "moe": "MixtureOfExperts"}


def make_insight(model, task, timesteps=TIMESTEPS, taps=TAPS, side=8):
    random = _random(model, task, "insight")
    weights = {
        s: random.dirichlet(np.ones(len(timesteps) * len(t))).reshape(len(timesteps), -1) for s, t in taps.items()
    }
    maps = {}
    if model.startswith("lw"):
        shape = (3, len(timesteps) * len(taps[min(taps)]), side, side)
        raw = np.exp(random.normal(size=shape))
        maps = {min(taps): (raw / raw.sum(1, keepdims=True)).reshape(3, len(timesteps), -1, side, side)}
    usage = {s: random.dirichlet(np.ones(4), size=len(timesteps)) for s in taps} if model.startswith("moe") else {}
    confusion = None
    if task in ("segmentation", "classification"):
        confusion = random.integers(0, 40, (8, 8)) + np.diag(random.integers(100, 400, 8))
        confusion[6] = 0  # a class that no test sample has
    head = HEADS.get(model.partition(" ")[0], "GlobalWeighted")
    if head == "GlobalWeighted":
        weights = {s: values / len(taps) for s, values in weights.items()}
    start = {s: np.full(values.shape, values.sum() / values.size) for s, values in weights.items()}
    return Insight(model, task, timesteps, taps, weights, usage, maps, confusion, head, start)


def make_curve(model, task, budget, seed):
    """A loss that falls and a score that rises."""
    random, steps = _random(model, task, budget, seed, "curve"), range(5, 205, 5)
    losses = [(step, float(2 * np.exp(-step / 60) + 0.05 * random.random())) for step in steps]
    scores = [(step, float(0.7 - 0.4 * np.exp(-step / 50) + 0.01 * random.random())) for step in range(20, 201, 20)]
    return Curve(model, task, budget, seed, losses, scores, "max_steps" if seed else "patience")


CHANCE = {
    "segmentation": Chance({"miou": 0.0391, "accuracy": 0.3127}, "always forest, the class of most test pixels"),
    "classification": Chance({"accuracy": 0.2083, "macro_f1": 0.0431}, "always water, the class of most test images"),
    "regression": Chance({"r2": 0.0, "rmse": 2.9}, "always the mean of the test samples"),
}


def make_panel(task, models, samples=4, side=32):
    """Pictures with structure, truths, and predictions of which some are wrong."""
    random = _random(task, "panel")
    y, x = np.mgrid[0:side, 0:side] / side
    field = [
        np.sin(6 * (x * random.normal() + y * random.normal())) + np.cos(5 * y * random.normal())
        for _ in range(samples)
    ]
    classes = np.stack([np.digitize(f, (-1.2, -0.7, -0.2, 0.2, 0.6, 1, 1.5)) for f in field])
    paint = np.stack([[90, 60, 40], [30, 80, 40], [120, 150, 70]], 1)[:, classes % 3].transpose(1, 2, 3, 0)
    pictures = np.clip(paint + random.normal(0, 12, paint.shape), 0, 255).astype(np.uint8)
    if task == "segmentation":
        truth = classes.astype(np.int64)
        truth[:, :3, :5] = 255
        told = {
            m: np.where(random.random(truth.shape) < 0.2, random.integers(0, 8, truth.shape), classes) for m in models
        }
    elif task == "classification":
        truth = random.integers(0, 8, samples)
        told = {m: np.where(random.random(samples) < 0.4, random.integers(0, 8, samples), truth) for m in models}
    elif task == "regression":
        truth = random.normal(10, 3, samples).astype(np.float32)
        told = {m: (truth + random.normal(0, 1, samples)).astype(np.float32) for m in models}
    else:
        truth = (random.random((samples, 8)) < 0.3).astype(np.float32)
        told = {m: np.where(random.random(truth.shape) < 0.1, 1 - truth, truth).astype(np.int64) for m in models}
    return Panel(tuple(f"test-{n}" for n in range(samples)), pictures, truth, told)


def make_content(models=MODELS, tasks=tuple(TASKS)[:3], budgets=(1.0, 10.0, 100.0), seeds=(0, 1), **sizes):
    """A comparison in which everything went well."""
    rows = [
        make_row(model, task, budget, seeds, number)
        for task in tasks
        for number, model in enumerate(models)
        for budget in budgets
    ]
    pairs = [
        pair
        for task in tasks
        for budget in budgets
        for pair in make_pairs([r for r in rows if (r.task, r.budget) == (task, budget)], TASKS[task][1][0])
    ]
    panel_sizes = {key: sizes[key] for key in ("samples", "side") if key in sizes}
    insight_sizes = {key: sizes[key] for key in ("timesteps", "taps") if key in sizes}
    sections = [
        Section(
            name=task,
            task=TASKS[task][0](LABELS),
            metric=TASKS[task][1][0],
            test_samples=120,
            panel=make_panel(task, models, **panel_sizes),
            chance=CHANCE.get(task),
            insights=[make_insight(model, task, **insight_sizes) for model in models if "ViT" not in model],
        )
        for task in tasks
    ]
    return Content(
        title="Diffusion features and adapted ViTs",
        command="satdifuser compare compare=small data.size=32 'models=[gw,lw,moe,deflect]'",
        sections=sections,
        rows=rows,
        comparisons=pairs,
        failures=[],
        missing=0,
        environments=[
            {"time": "2026-01-01T00:00:00+00:00", "device": "cpu", "packages": {"torch": "2.10.0", "xformers": None}},
            {"time": "2026-01-01T00:00:00+00:00", "device": "H100", "packages": {"torch": "2.11.0", "xformers": None}},
        ],
        configurations={(model, task): f"model: {model}\ntask: <{task}>\n" * 20 for model in models for task in tasks},
        settings={"resamples": 2000, "permutations": 10000, "seeds": list(seeds), "epochs": 30},
        floor=models[-1:],
        curves=[make_curve(models[0], task, budget, seed) for task in tasks for budget in budgets for seed in seeds],
        made=Made("2026-01-01", "2026-01-02", ("0123456789ab",), ("0.2.0",)),
    )


@pytest.fixture(scope="session")
def rich():
    """Five models (one with a name of markup), three tasks, three budgets, two seeds, and a run that failed."""
    whole = make_content()
    gone = ("moe on diffusion", "regression", 1.0)
    failure = Failure(EVIL, "classification", 10.0, 1, "RuntimeError: out of <memory> & time")
    rows = []
    for row in whole.rows:
        if (row.model, row.task, row.budget) == gone:
            continue
        if (row.model, row.task, row.budget) == (failure.model, failure.task, failure.budget):
            row = dataclasses.replace(
                row, seeds=(0,), scores={k: dataclasses.replace(e, seeds=e.seeds[:1]) for k, e in row.scores.items()}
            )
        rows.append(row)
    pairs = [c for c in whole.comparisons if gone not in ((c.first, c.task, c.budget), (c.second, c.task, c.budget))]
    return dataclasses.replace(whole, rows=rows, comparisons=pairs, failures=[failure], missing=2)


@pytest.fixture(scope="session")
def make():
    """The maker of contents."""
    return make_content


@pytest.fixture(scope="session")
def written(rich, tmp_path_factory):
    """The folder of the rich report."""
    folder = tmp_path_factory.mktemp("report")
    write_report(rich, folder)
    return folder


@pytest.fixture
def open_page(tmp_path):
    """Open a file in a headless browser of a laptop's width; skips where there is no browser."""
    place = Path(__file__).with_name("browser.py")
    spec = importlib.util.spec_from_file_location("report_browser", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    binary = module.find()
    if binary is None:
        pytest.skip(f"no browser on the path: looked for {', '.join(module.NAMES)}")
    opened = []

    def start(path):
        opened.append(module.Browser(binary, tmp_path / f"profile{len(opened)}"))
        opened[-1].open(path)
        return opened[-1]

    yield start
    for browser in opened:
        browser.close()
