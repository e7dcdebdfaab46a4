"""`satdifuser cka`: how alike the places of two networks are, and what training has moved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from satdifuser.report.depth.content import Likeness, Place
    from satdifuser.settings.studies import CkaSettings

SHOWN = 8  # rows of a table
UNMOVED = 1 - 1e-6  # above it, a likeness differs from 1 by rounding alone


def run(settings: CkaSettings, command: str = "") -> Likeness:
    """Compare both sides, print the short of it, and write the page with its tables and figures.

    `command` is what was typed.
    """
    from satdifuser.engine.memory import keep_memory
    from satdifuser.engine.progress import say
    from satdifuser.report.depth.content import Depths
    from satdifuser.report.depth.page import write_page
    from satdifuser.study.cka import likeness

    keep_memory()
    found = likeness(settings)
    show(found)
    folder = Path(settings.output).expanduser()
    write_page(Depths(likeness=(found,)), folder, f"{found.first} and {found.second}", command)
    say(f"wrote {folder}: cka.json, report.html, tables and figures")
    return found


def show(found: Likeness) -> None:
    """What has moved by kind, block and place of one architecture; else the place that each is most like."""
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else 120)
    pool = f"{found.pool} of each map" if found.pool != "flat" else "whole maps"
    about = f"{found.samples} samples of {found.split}, in batches of up to {found.batch}"
    header = f"CKA of {found.first} (rows) with {found.second} (columns): {pool}, {about}"
    console.print(header, highlight=False, soft_wrap=True)
    if not found.same:
        _print_best(console, found)
        return
    own = np.diag(found.values)
    if np.nanmin(own, initial=1.0) > UNMOVED:
        unmoved = (
            "nothing moved: every place of both is the same, as where an encoder is frozen and only a head has trained"
        )
        console.print(unmoved, highlight=False, soft_wrap=True)
        return
    for what, groups in (("kind", grouped(found.rows, "kind")), ("part", grouped(found.rows, "block"))):
        _print_groups(console, what, groups, own)
    moved = [n for n in np.argsort(own, kind="stable").tolist() if not math.isnan(own[n])]
    _print_places(console, found, moved)


def grouped(places: Iterable[Place], by: str) -> dict[str, list[int]]:
    """The numbers of the places of each kind, or of each block, in the order of computation."""
    found: dict[str, list[int]] = {}
    for number, place in enumerate(places):
        found.setdefault(str(getattr(place, by)), []).append(number)
    return found


def _print_groups(console: object, what: str, groups: Mapping[str, list[int]], own: np.ndarray) -> None:
    from rich.console import Console
    from rich.table import Table

    assert isinstance(console, Console)
    if len(groups) < 2:
        return
    table = Table(what, "places", "CKA, mean", "least", box=None, header_style="bold")
    table.title, table.title_justify = f"\nwhat moved, by {what}: 1 is unmoved", "left"
    rows = [(name, own[numbers][~np.isnan(own[numbers])]) for name, numbers in groups.items()]
    for name, values in sorted((row for row in rows if len(row[1])), key=lambda row: float(row[1].mean()))[:SHOWN]:
        table.add_row(name, str(len(values)), f"{values.mean():.4f}", f"{values.min():.4f}")
    console.print(table)
    if len(groups) > SHOWN:
        console.print(f"and {len(groups) - SHOWN} more", highlight=False)


def _print_places(console: object, found: Likeness, order: list[int]) -> None:
    from rich.console import Console
    from rich.table import Table

    assert isinstance(console, Console)
    table = Table("place", "CKA with itself", "error", "rank before", "and after", box=None, header_style="bold")
    table.title, table.title_justify = "\nthe places that moved most", "left"
    for n in order[:SHOWN]:
        ranks = [f"{side[n].rank:.1f}" if side else "" for side in (found.shapes[1], found.shapes[0])]
        table.add_row(str(found.rows[n]), f"{found.values[n, n]:.4f}", _error(found.errors[n, n]), *ranks)
    console.print(table)


def _print_best(console: object, found: Likeness) -> None:
    from rich.console import Console
    from rich.table import Table

    assert isinstance(console, Console)
    table = Table("place", "is most like", "CKA", "error", box=None, header_style="bold")
    for n, row in enumerate(found.values):
        if n >= 3 * SHOWN:
            break
        best = None if np.isnan(row).all() else int(np.nanargmax(row))
        words = ["", "", ""] if best is None else [str(found.columns[best]), f"{row[best]:.4f}", ""]
        if best is not None:
            words[2] = _error(found.errors[n, best])
        table.add_row(str(found.rows[n]), *words)
    console.print(table)
    if len(found.rows) > 3 * SHOWN:
        console.print(f"and {len(found.rows) - 3 * SHOWN} more places", highlight=False)


def _error(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
