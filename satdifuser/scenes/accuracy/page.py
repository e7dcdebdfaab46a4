"""The page `accuracy.html`: accuracy, areas and the matrix of a map, in one file that loads nothing."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from satdifuser.scenes.accuracy.estimators import Estimate
from satdifuser.scenes.accuracy.flow import Evaluated
from satdifuser.scenes.accuracy.tables import MEASURES, amount_form, ground, share

WIDE, HIGH = 380, 26


def html(done: Evaluated, command: str = "") -> str:
    """ASCII alone, so that it reads the same whatever a server says of its encoding."""
    from satdifuser.report.rendering import rendered

    most = float(done.found.matrix.max())
    return rendered(
        "accuracy.html",
        content=SimpleNamespace(title="Accuracy and areas of a map"),
        nav=[("accuracy", "Accuracy"), ("areas", "Areas"), ("matrix", "Matrix"), ("sample", "Sample")],
        done=done,
        command=command,
        measures=MEASURES,
        rows=[_row(done, place) for place in range(len(done.classes))],
        overall=share(done.found.overall),
        matrix=_matrix(done, most),
        strata=[
            (name, _amount(done, float(area)), f"{area / done.areas.sum():.1%}", int(units), int(clusters))
            for name, area, units, clusters in zip(
                done.strata, done.areas, done.found.units, done.found.clusters, strict=True
            )
        ],
        level=f"{done.level * 100:g}",
    )


def _amount(done: Evaluated, square_metres: float) -> str:
    value = done.area(square_metres)
    return f"{value:{amount_form(value)}}"


def _row(done: Evaluated, place: int) -> dict[str, Any]:
    found = done.found
    whole = done.area(done.whole)
    area = found.shares[place].times(whole)
    top = max(*(done.area(float(one)) for one in done.mapped), *(whole * _end(one) for one in found.shares))
    return {
        "name": done.classes[place],
        "mapped": _amount(done, float(done.mapped[place])),
        "area": ground(area),
        "error": "open" if math.isnan(area.error) else f"{area.error:{amount_form(area.value)}}",
        "share": share(found.shares[place]),
        "scores": [share(getattr(found, measure)[place]) for measure in MEASURES],
        "bar": _bar(done.area(float(done.mapped[place])), area, top),
    }


def _end(one: Estimate) -> float:
    return one.value if math.isnan(one.high) else one.high


def _bar(mapped: float, area: Estimate, top: float) -> str:
    """As SVG: a bar of the area that the map says, a dot and a line of the estimate and its interval."""
    scale = (WIDE - 8) / top if top > 0 else 0.0
    x, low, high = (4 + scale * value for value in (area.value, area.low, area.high))
    middle = HIGH / 2
    ends = f"M{low:.1f} {middle - 5}v10M{high:.1f} {middle - 5}v10"
    path = f'<path d="M{low:.1f} {middle}H{high:.1f}{ends}" stroke="#1c1c1c" stroke-width="1.6" fill="none"/>'
    line = "" if math.isnan(area.error) else path
    return (
        f'<svg viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}" role="img" aria-label="mapped and estimated'
        f' area"><rect x="4" y="5" width="{scale * mapped:.1f}" height="{HIGH - 10}" fill="#b9cde0"/>{line}'
        f'<circle cx="{x:.1f}" cy="{middle}" r="4" fill="#0b5394"/></svg>'
    )


def _matrix(done: Evaluated, most: float) -> list[tuple[str, list[tuple[str, int, int]], str]]:
    """Rows of (share, units, shade), and of the sum."""
    from satdifuser.report.views import SHADES

    rows = []
    for place, name in enumerate(done.classes):
        cells = [
            (f"{value:.4f}", int(count), round((SHADES - 1) * (value / most) ** 0.5) if most > 0 else 0)
            for value, count in zip(done.found.matrix[place], done.found.counts[place], strict=True)
        ]
        rows.append((name, cells, f"{done.found.matrix[place].sum():.4f}"))
    return rows
