"""Blocks in space: what keeping splits apart takes, beside a comparison of all pairs, in one run.

python tools/bench_splits.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Results

from satdifuser.data.splits.near import Tiles, between, near
from satdifuser.data.splits.places import Footprint, Places

SIDE, BLOCK, APART = 2560.0, 25_600.0, 1280.0


def seconds(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    begun = time.process_time()
    found = work(*arguments)
    return time.process_time() - begun, found


def all_pairs(mine: Tiles, others: Tiles, apart: float) -> np.ndarray:
    """Every tile with every other one: centres first, corners of those that it leaves."""
    found = np.zeros(len(mine), bool)
    for number in range(len(mine)):
        far = np.linalg.norm(others.centres - mine.centres[number], axis=1)
        some = np.flatnonzero(far < apart + mine.outer[number] + others.outer)
        if len(some):
            found[number] = bool((between(mine[np.full(len(some), number)], others[some])[0] < apart).any())
    return found


def placed(count: int, crs: str, rng: np.random.Generator) -> dict[str, Footprint]:
    """Tiles at random, so many that they would cover their square once."""
    extent = SIDE * count**0.5
    x, y = rng.uniform(0, extent, (2, count))
    if crs == "EPSG:4326":
        side = SIDE / 111_320
        east, north = 10 + x / 111_320, y / 111_320
    else:
        side, east, north = SIDE, 5e5 + x - extent / 2, 1e6 + y
    corners = zip(east.tolist(), north.tolist(), strict=True)
    return {f"{n:06d}": Footprint.box(a, b, a + side, b + side, crs) for n, (a, b) in enumerate(corners)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, nargs="+", default=[5_000, 20_000, 100_000])
    parser.add_argument("--pairs-up-to", type=int, default=100_000, help="more tiles are not compared pair by pair")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = Results(arguments.json, unit="CPU seconds, median of rounds")
    columns = {"map": "", "tiles": "d", "footprints": ".2f", "kept apart": ".2f", "all pairs": ".1f", "ratio": ".0f"}
    add = results.table("Splits by blocks", columns)
    for crs in ("EPSG:32632", "EPSG:4326"):
        for count in arguments.tiles:
            where = placed(count, crs, np.random.default_rng(count))
            made, apart, whole = list[float](), list[float](), list[float]()
            for _ in range(arguments.rounds):
                took, places = seconds(Places, list(where), where.get)
                made.append(took)
                tested = (
                    np.random.default_rng(0).random(1_000_000)[places.blocks(BLOCK) @ [7919, 104_729] % 1_000_000] < 0.2
                )
                sides = places.tiles[~tested], places.tiles[tested]
                took, found = seconds(near, *sides, APART)
                apart.append(took)
            if count <= arguments.pairs_up_to:
                took, wanted = seconds(all_pairs, *sides, APART)
                whole.append(took)
                assert (found == wanted).all()
            ours = statistics.median(apart)
            pairs = statistics.median(whole) if whole else None
            add(crs, count, statistics.median(made), ours, pairs, None if pairs is None else pairs / ours)


if __name__ == "__main__":
    main()
