"""Made-up studies of depth: any encoder, probes, views, budgets and timesteps, and likenesses of any size."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from satdifuser.report.depth.content import Decoded, Depths, Likeness, Place, Point, Probed, Shape, Weighed
from satdifuser.report.estimate import Estimate

EVIL = '<b>&"x_1%$a$'
UNET = ("mid_block.attentions.0", *(f"up_blocks.{b}.resnets.{r}.conv2" for b in range(3) for r in range(3)))
VIT = tuple(f"blocks.{n}" for n in range(12))
KINDS = ("norm1", "qkv", "attention", "norm2", "fc1", "fc2")


def random_of(*words):
    return np.random.default_rng(zlib.crc32("/".join(map(str, words)).encode()))


def estimate(random, value, seeds=2):
    each = tuple(float(value + random.normal(0, 0.004)) for _ in range(seeds))
    mean = float(np.mean(each))
    return Estimate(mean, mean - random.uniform(0.01, 0.03), mean + random.uniform(0.01, 0.03), each)


def places(taps, timesteps=(None,), kind="block"):
    return [Place(tap, step, n, 64, 8, kind, tap) for step in timesteps for n, tap in enumerate(taps)]


def make_probed(
    model="ViT-S",
    task="EuroSAT",
    taps=VIT,
    timesteps=(None,),
    probes=("logistic", "knn"),
    views=("mean",),
    budgets=(10.0, 100.0),
    chance=0.1,
):
    """Scores that rise, then fall with depth; better with more labels; the best place is not tested against itself."""
    random = random_of(model, task)
    points = []
    for probe in probes:
        for view in views:
            for budget in budgets:
                raw = []
                for place in places(taps, timesteps):
                    depth = place.number / max(len(taps) - 1, 1)
                    noise = 0 if place.timestep is None else 0.1 * abs(place.timestep - 61) / 100
                    value = 0.9 - 0.6 * (depth - 0.65) ** 2 - noise - 0.1 * (budget < 50) - 0.03 * (probe == "knn")
                    scores = {"accuracy": estimate(random, value), "macro_f1": estimate(random, value - 0.02)}
                    raw.append((place, scores))
                best = max(range(len(raw)), key=lambda n: raw[n][1]["accuracy"].value)
                for n, (place, scores) in enumerate(raw):
                    gap = raw[best][1]["accuracy"].value - scores["accuracy"].value
                    p = None if n == best else float(np.exp(-120 * gap))
                    logistic = probe == "logistic"
                    points.append(
                        Point(
                            place,
                            view,
                            probe,
                            budget,
                            int(20 * budget),
                            scores,
                            strengths=(0.1234, 3.5) if logistic else (None, None),
                            p=p,
                            calibration=(0.0712, 0.0213) if logistic else None,
                            temperature=1.37 if logistic else None,
                        )
                    )
    about = {"encoder": {"name": model, "weights": "none"}, "seed": 0, "views": list(views)}
    return Probed(model, task, "accuracy", "test", 400, (0, 1), tuple(points), chance, about)


def make_likeness(first="ViT-S", second="UNet", rows=None, columns=None, same=False, shapes=True):
    random = random_of(first, second)
    rows = tuple(rows or places(VIT))
    columns = tuple(rows if same else columns or places(UNET, (21, 61)))
    n, m = len(rows), len(columns)
    near = np.exp(-3 * np.abs(np.linspace(0, 1, n)[:, None] - np.linspace(0, 1, m)[None, :]))
    values = near * 0.9 + random.normal(0, 0.02, (n, m)) - 0.04
    if same:
        drift = [
            0.02 * place.number / 6 + 0.15 * (place.kind == "fc1") + 1e-4 * (place.timestep or 0) for place in rows
        ]
        np.fill_diagonal(values, 1 - np.array(drift))
    errors = random.uniform(0.002, 0.02, (n, m))

    def shape_of(some):
        return tuple(Shape(float(random.uniform(5, 20)), float(random.uniform(10, 60))) for _ in some)

    found = (shape_of(rows), shape_of(columns)) if shapes else ((), ())
    return Likeness(first, second, rows, columns, values, errors, 512, 128, "mean", "test", same, found, {"seed": 0})


def modules(blocks=12, timesteps=(None,)):
    """Every kind of module of every block of a ViT."""
    return [
        Place(f"blocks.{b}.{kind}", step, b * len(KINDS) + n, 64, 8, kind, f"blocks.{b}")
        for step in timesteps
        for b in range(blocks)
        for n, kind in enumerate(KINDS)
    ]


def make_decoded(family="ViT-S", task="EuroSAT", decoders=("light", "upernet", "single"), budgets=(10.0, 100.0)):
    random = random_of(family, task, "decoded")
    return tuple(
        Decoded(
            family,
            decoder,
            task,
            "miou",
            budget,
            depth,
            f"blocks.{depth}",
            estimate(random, 0.5 + 0.02 * depth - 0.0015 * depth**2 + 0.02 * n - 0.1 * (budget < 50)),
            10_000 * 9**n,
            20.0 + 13 * n + depth,
        )
        for n, decoder in enumerate(decoders)
        for budget in budgets
        for depth in (2, 5, 8, 11)
    )


def make_weighed(model="UNet gw", task="EuroSAT", timesteps=(21, 61)):
    random = random_of(model, task, "weighed")
    mine = tuple(places(UNET, timesteps))
    weights = random.dirichlet(np.ones(len(mine))) * len(mine)
    scores = tuple(estimate(random, 0.6 + 0.02 * w) for w in weights)
    return Weighed(model, task, "accuracy", "logistic", "mean", 100.0, mine, tuple(map(float, weights)), scores, 0.714)


def make_depths():
    """Everything that a page can show, with a name of markup."""
    return Depths(
        probes=(
            make_probed(views=("mean", "class")),
            make_probed("UNet", taps=UNET, timesteps=(21, 61, 161)),
            make_probed(EVIL, task="scenes & <more>", budgets=(100.0,)),
        ),
        likeness=(
            make_likeness(),
            make_likeness(f"{EVIL} finetuned", "its origin", modules(), same=True),
        ),
        decoded=make_decoded(),
        weighed=(make_weighed(),),
    )


@pytest.fixture(scope="session")
def depths():
    return make_depths()


@pytest.fixture(scope="session")
def made():
    """The makers of made-up studies."""
    return SimpleNamespace(
        probed=make_probed,
        likeness=make_likeness,
        decoded=make_decoded,
        weighed=make_weighed,
        modules=modules,
        places=places,
        evil=EVIL,
        unet=UNET,
        vit=VIT,
    )
