"""What was found of a map as rows of plain values, as files of them, and on the terminal."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np

from satdifuser.scenes.accuracy.estimators import Estimate
from satdifuser.scenes.accuracy.flow import Evaluated

MEASURES = {"users": "user's accuracy", "producers": "producer's accuracy", "f1": "F1", "iou": "IoU"}


def plain(done: Evaluated) -> dict[str, Any]:
    """Everything, in JSON's own kinds of values: what is not known is null."""
    found = done.found
    return {
        "map": done.map,
        "reference": done.reference,
        "design": done.design,
        "level": done.level,
        "units": done.kind,
        "used": done.used,
        "area_unit": done.unit,
        "area": _number(done.area(done.whole)),
        "notes": list(done.said),
        "overall": _estimate(found.overall),
        "classes": [
            {
                "name": name,
                "mapped_area": _number(done.area(float(done.mapped[place]))),
                "area": _estimate(found.shares[place].times(done.area(done.whole))),
                "share": _estimate(found.shares[place]),
                **{measure: _estimate(getattr(found, measure)[place]) for measure in MEASURES},
            }
            for place, name in enumerate(done.classes)
        ],
        "strata": [
            {"name": name, "area": _number(done.area(float(area))), "units": int(units), "clusters": int(clusters)}
            for name, area, units, clusters in zip(done.strata, done.areas, found.units, found.clusters, strict=True)
        ],
        "matrix": {"rows": "map", "columns": "reference", "classes": list(done.classes)}
        | {"shares": found.matrix.tolist(), "counts": found.counts.tolist()},
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _estimate(found: Estimate) -> dict[str, float | None]:
    return {
        "value": _number(found.value),
        "standard_error": _number(found.error),
        "low": _number(found.low),
        "high": _number(found.high),
    }


def class_rows(values: dict[str, Any]) -> list[list[Any]]:
    """One number a row, as tables of statistics like it; the first is of the whole map."""
    unit, parts = values["area_unit"], ("value", "standard_error", "low", "high")
    rows = [["class", "measure", "unit", *parts], ["", "overall accuracy", "", *values["overall"].values()]]
    for one in values["classes"]:
        rows.append([one["name"], "mapped area", unit, one["mapped_area"], None, None, None])
        rows.append([one["name"], "area", unit, *one["area"].values()])
        shares = {"share": "share of the area", **MEASURES}
        rows += [[one["name"], name, "", *one[measure].values()] for measure, name in shares.items()]
    return rows


def matrix_rows(done: Evaluated) -> list[list[Any]]:
    """A row for each class of the map: shares of the area, then units, by true class."""
    names = list(done.classes)
    rows: list[list[Any]] = [
        ["map", *(f"{name} (share of the area)" for name in names), *(f"{n} (units)" for n in names)]
    ]
    for place, name in enumerate(names):
        rows.append([name, *done.found.matrix[place].tolist(), *done.found.counts[place].tolist()])
    return rows


def as_csv(rows: list[list[Any]]) -> str:
    """Rows as the text of a file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def share(found: Estimate) -> str:
    """
    >>> share(Estimate(0.88, 0.038, 0.787, 0.936)), share(Estimate(0.5, math.nan, math.nan, math.nan))
    ('0.880 (0.787 to 0.936)', '0.500 (open)')
    """
    if math.isnan(found.value):
        return "-"
    return f"{found.value:.3f} (open)" if math.isnan(found.error) else f"{found.value:.3f} ({_to(found, '.3f')})"


def ground(found: Estimate) -> str:
    """
    >>> ground(Estimate(21157.76, 3141.6, 15000.0, 27315.4)), ground(Estimate(2.134, 0.1, 1.9, 2.4))
    ('21,158 (15,000 to 27,315)', '2.13 (1.90 to 2.40)')
    """
    form = amount_form(found.value)
    return f"{found.value:{form}} (open)" if math.isnan(found.error) else f"{found.value:{form}} ({_to(found, form)})"


def amount_form(value: float) -> str:
    """How many digits an area is shown with."""
    return ",.0f" if value >= 1000 else ",.1f" if value >= 100 else ",.2f"


def _to(found: Estimate, form: str) -> str:
    return f"{found.low:{form}} to {found.high:{form}}"


def show(done: Evaluated) -> None:
    """The short of it, on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 160)
    clusters = int(done.found.clusters.sum())
    about = f"{done.used} {done.kind}" + (f" in {clusters} clusters" if "pixels" in done.kind else "")
    strata = "anywhere alike" if done.design == "simple" else f"in {len(done.strata)} strata"
    console.print(f"{about}, drawn {strata}; intervals of {done.level:.0%}", markup=False, highlight=False)
    for line in done.said:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"overall accuracy {share(done.found.overall)}", markup=False, highlight=False)
    table = Table("class", box=None, header_style="bold")
    for name in (f"mapped, {done.unit}", f"area, {done.unit}", *MEASURES.values(), "sample"):
        table.add_column(name, justify="right")
    counts = np.asarray(done.found.counts).sum(1)
    for place, name in enumerate(done.classes):
        mapped = done.area(float(done.mapped[place]))
        table.add_row(
            name,
            f"{mapped:{amount_form(mapped)}}",
            ground(done.found.shares[place].times(done.area(done.whole))),
            *(share(getattr(done.found, measure)[place]) for measure in MEASURES),
            str(counts[place]),
        )
    console.print(table)
