"""The page `data.html` (or `samples.html`): findings, counts, bands and pictures in one file that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from satdifuser.data.bands import Sensor
from satdifuser.data.check.findings import ORDER, Finding, share
from satdifuser.data.check.gallery import Card, Gallery
from satdifuser.data.check.inputs import rows_of as input_rows
from satdifuser.data.check.whole import Checked
from satdifuser.data.statistics import ERROR, Tally, rows_of

PICTURE_BYTES = 8_000_000
BINS, WIDE, HIGH = 60, 180, 36


@dataclass
class Page:
    """What is shown."""

    title: str
    command: str
    gallery: Gallery
    checked: Checked
    findings: Sequence[Finding] = ()
    everything: bool = True  # counts and bands too


def html(page: Page) -> str:
    """ASCII alone, so that it reads the same whatever a server says of its encoding."""
    import jinja2
    from markupsafe import Markup

    from satdifuser import __version__
    from satdifuser.report.pictures import Pictures, png

    here = resources.files("satdifuser.data.check")
    files = {name: (here / name).read_text(encoding="utf-8") for name in ("page.html", "page.css")}
    made = Pictures(PICTURE_BYTES)

    def drawn(card: Card) -> list[tuple[str, str]]:
        found = [(what, png(pixels)) for what, pixels in card.pictures]
        return found if made.take([address for _, address in found]) else []

    maker = jinja2.Environment(
        loader=jinja2.DictLoader(files),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    checked = page.checked
    text = maker.get_template("page.html").render(
        page=page,
        version=__version__,
        style=Markup(files["page.css"]),
        findings=[
            (verdict, [_finding(f, page, drawn) for f in page.findings if f.verdict == verdict]) for verdict in ORDER
        ],
        splits=[(look.name, look.total, look.looked) for look in checked.looks],
        classes=_classes(checked),
        bands=_bands(checked, Markup) if page.everything and checked.tally.samples else [],
        error=share(ERROR),
        inputs=_inputs(checked) if page.everything else [],
        legend=_legend(checked),
        drawn_as=page.gallery.told,
        sensor=checked.sensor,
        groups=[
            (name, [(card, drawn(card)) for card in cards]) for name, cards in page.gallery.groups.items() if cards
        ],
        made=made,
        number=_number,
        share=share,
    )
    return text.strip().encode("ascii", "xmlcharrefreplace").decode() + "\n"


def _finding(found: Finding, page: Page, drawn: Any) -> tuple[Finding, list[tuple[Card, Any]]]:
    named = page.gallery.named
    some = [named[name] for name in found.samples[:4] if name in named]
    return found, [(card, drawn(card)) for card in some] if found.verdict != "fine" else []


def _number(value: Any) -> str:
    """
    >>> _number(0.123456), _number(12345), _number(None), _number(-3.0)
    ('0.1235', '12,345', '-', '-3')
    """
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _legend(checked: Checked) -> list[tuple[str, str]]:
    labels = checked.looks[0].labels
    return list(zip(labels.classes, labels.colours, strict=False))


def _classes(checked: Checked) -> dict[str, Any] | None:
    """A row for each class: its colour, and in each split its count and share."""
    counts = checked.classes()
    if not counts:
        return None
    totals = {split: max(sum(found.values()), 1) for split, found in counts.items()}
    masks = any(one.mask is not None for look in checked.looks for one in look.seen)
    rows = []
    for name, colour in _legend(checked):
        cells = [(found.get(name, 0), found.get(name, 0) / totals[split]) for split, found in counts.items()]
        rows.append((name, colour, cells))
    return {"splits": list(counts), "rows": rows, "of": "pixels" if masks else "images"}


def _bands(checked: Checked, markup: Any) -> list[dict[str, Any]]:
    rows = rows_of(checked.tally, checked.sensor, (1, 50, 99))
    usual = [band.usual for band in checked.sensor]
    return [
        {**row, "usual": usual[place], "chart": markup(histogram(checked.tally, checked.sensor, place))}
        for place, row in enumerate(rows)
    ]


def histogram(tally: Tally, sensor: Sensor, place: int) -> str:
    """As SVG: how often which value is, from the lowest 0.1 % to the highest, with where values usually are in grey."""
    if not tally.count[place] or not tally.high[place] > tally.low[place]:
        return ""
    least, most = sensor.bands[place].usual
    low, high = tally.percentile(place, 0.1), tally.percentile(place, 99.9)
    if high - low > 0.2 * (most - least) and low < most and high > least:
        low, high = min(low, least), max(high, most)
    if not high > low:
        return ""
    counts = tally.histogram(place, np.linspace(low, high, BINS + 1))
    tops = HIGH * np.sqrt(counts / max(counts.max(), 1e-9))
    step = WIDE / BINS
    points = [
        f"{place * step:.1f},{HIGH - top:.1f} {(place + 1) * step:.1f},{HIGH - top:.1f}"
        for place, top in enumerate(tops)
    ]
    left, right = (float(np.clip((edge - low) / (high - low), 0, 1)) * WIDE for edge in (least, most))
    name = sensor.names[place]
    return (
        f'<svg viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}" role="img" aria-label="histogram of {name}'
        f' from {low:.3g} to {high:.3g}"><rect class="usual" x="{left:.1f}" y="0" width="{max(right - left, 0):.1f}"'
        f' height="{HIGH}"/><polygon class="bars" points="0,{HIGH} {" ".join(points)} {WIDE},{HIGH}"/></svg>'
        f'<span class="ends"><span>{low:.3g}</span><span>{high:.3g}</span></span>'
    )


def _inputs(checked: Checked) -> list[tuple[str, list[dict[str, Any]]]]:
    if checked.prepare is None:
        return []
    return [(look.name, input_rows(look.input, checked.prepare)) for look in checked.looks if look.input is not None]
