"""Whether the images are what the chosen encoder's input expects, and what its weights have seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satdifuser.data.check.findings import Finding, fine, share, some
from satdifuser.data.check.seen import InputMoments, Look
from satdifuser.data.inputs import ImageInput
from satdifuser.data.trained import PERCENTILES, other_range, other_unit

CLIPPED = 0.1  # of a band's values
BLIND = 0.99
STD = (0.4, 2.5)  # of an input that has 1 in pretraining
LEAST = 0.05  # deviation of an input between -1 and 1
TODO = "set encoder.prepare.low and high, or encoder.prepare.policy=percentiles (or standardise)"


def rows_of(found: InputMoments, prepare: ImageInput) -> list[dict[str, Any]]:
    """Of each band of the input: the range, what is clipped of it, mean and deviation of what the network gets."""
    count = np.maximum(found.count, 1)
    return [
        {
            "band": name,
            "low": prepare.lows[place],
            "high": prepare.highs[place],
            "clipped low": float(found.low[place] / count[place]),
            "clipped high": float(found.high[place] / count[place]),
            "mean": float(found.mean[place]),
            "std": float(np.sqrt(found.squares[place] / count[place])),
        }
        for place, name in enumerate(prepare.bands)
    ]


def inputs(looks: Sequence[Look], prepare: ImageInput) -> Iterator[Finding]:
    look = next((look for look in looks if look.name == "train" and look.input is not None), looks[0])
    if look.input is None or not look.input.count.any():
        return
    rows = [row for row, count in zip(rows_of(look.input, prepare), look.input.count, strict=True) if count]
    blind = [row for row in rows if row["clipped low"] + row["clipped high"] >= BLIND]
    if blind:
        which = [f"{r['band']} ({share(max(r['clipped low'], r['clipped high']))} {_side(r)})" for r in blind]
        what = f"the encoder sees nothing of {some(which)}: all values are clipped"
        yield Finding("error", "input-blind", what, look.name, TODO)
        return
    cut = [row for row in rows if max(row["clipped low"], row["clipped high"]) > CLIPPED]
    if cut:
        which = [f"{r['band']} {share(max(r['clipped low'], r['clipped high']))} {_side(r)}" for r in cut]
        yield Finding("warning", "input-clipped", f"the encoder's range cuts {some(which, 4)}", look.name, TODO)
    odd = list(_far_off(rows, prepare, look.name))
    yield from odd
    if not cut and not odd:
        means = ", ".join(f"{r['band']} {r['mean']:.2f} \u00b1 {r['std']:.2f}" for r in rows[:4])
        yield from fine("input", f"the network's input is {means}{' ...' if len(rows) > 4 else ''}")


def pretrained(prepare: ImageInput, weights: Path) -> Iterator[Finding]:
    """Weights in a folder of `satdifuser pretrain` say which range they were trained on."""
    others = other_range(prepare, weights)
    if others:
        what = f"{weights} was trained on inputs of another range"
        yield Finding("warning", "input-pretrained", what, "", f"give it {' '.join(others)}")
    unit = other_unit(prepare, weights)
    if unit:
        yield Finding("fine", "input-pretrained", f"{weights} {unit}", "", PERCENTILES)


def _side(row: dict[str, Any]) -> str:
    high = row["clipped high"] >= row["clipped low"]
    return f"above {row['high']:.4g}" if high else f"below {row['low']:.4g}"


def _far_off(rows: Sequence[dict[str, Any]], prepare: ImageInput, where: str) -> Iterator[Finding]:
    plain = {*prepare.mean, *prepare.std} == {0.5}
    raw = {*prepare.mean} == {0.0} and {*prepare.std} == {1.0}
    if plain or raw:
        clouds = {band.name for band in prepare.sensor if band.common == "cirrus"}  # nearly 0 where none are high
        rows = [row for row in rows if row["band"] not in clouds]
        flat = [row for row in rows if row["std"] < (LEAST if plain else LEAST / 4)]
        if flat:
            said = [f"{row['band']} {row['mean']:.2f} \u00b1 {row['std']:.3f}" for row in flat]
            what = f"the network's input hardly changes, from {'-1' if plain else '0'} to 1: {some(said, 4)}"
            yield Finding("warning", "input-flat", what, where, TODO)
        return
    far = [row for row in rows if abs(row["mean"]) > 1 or not STD[0] <= row["std"] <= STD[1]]
    if far:
        said = [f"{row['band']} {row['mean']:.2f} \u00b1 {row['std']:.2f}" for row in far]
        yield Finding(
            "warning",
            "input-off",
            f"the network's input is far from the 0 \u00b1 1 of its pretraining: {some(said, 4)}",
            where,
            TODO,
        )
