"""From a template and what it shows to the text of a page that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from importlib import resources
from typing import Any

from satdifuser.report import exports, numbers, views

TEMPLATES = (
    "frame.html",
    "template.html",
    "parts.html",
    "repeat.html",
    "reading.html",
    "depth.html",
    "depth_page.html",
    "accuracy.html",
)


def rendered(template: str, **values: Any) -> str:
    """A template's text in ASCII alone, so that it reads the same whatever a server says of its encoding."""
    import jinja2
    from markupsafe import Markup

    from satdifuser import __version__

    here = resources.files("satdifuser.report")
    pages = jinja2.DictLoader({name: (here / name).read_text(encoding="utf-8") for name in TEMPLATES})
    maker = jinja2.Environment(
        loader=pages, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    maker.filters.update(
        score=numbers.score, p=numbers.probability, percent=numbers.percent, metric=numbers.metric_name, inline=Markup
    )
    maker.filters.update(
        interval=exports.interval,
        deviation=exports.deviation,
        signed=partial(numbers.score, sign=True),
        counted=numbers.plural,
    )
    text = maker.get_template(template).render(
        version=__version__,
        style=Markup((here / "report.css").read_text(encoding="utf-8") + shades()),
        script=Markup((here / "report.js").read_text(encoding="utf-8")),
        **values,
    )
    return text.strip().encode("ascii", "xmlcharrefreplace").decode() + "\n"


def shown(value: Any) -> str:
    """A setting as text; what is nested stands by its full name, as on a command line.

    >>> print(shown({"splits": {"train": {"length": 64}, "val": None}, "seeds": [0, 1]}))
    splits.train.length: 64
    splits.val: -
    seeds: 0, 1
    >>> print(shown([{"run": "a", "encoder": "b"}, {"run": "c"}]))
    run: a, encoder: b
    run: c
    """
    if value is None:
        return "-"
    if isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        return "\n".join(shown(one).replace("\n", ", ") for one in value)
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {shown(one)}" for name, one in _leaves(value))
    return str(value)


def _leaves(value: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, one in value.items():
        if isinstance(one, Mapping) and one:
            yield from ((f"{key}.{name}", leaf) for name, leaf in _leaves(one))
        else:
            yield str(key), one


def shades() -> str:
    """The scale of colours (cividis) of all tables of numbers, each with the ink that is read best on it."""
    import matplotlib

    lines = []
    for number in range(views.SHADES):
        red, green, blue, _ = matplotlib.colormaps["cividis"](number / (views.SHADES - 1), bytes=True)
        light = [
            ((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92 for c in map(int, (red, green, blue))
        ]
        bright = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]
        ink = "#fff" if 1.05 / (bright + 0.05) > (bright + 0.05) / 0.05 else "#000"
        lines.append(f".s{number}{{background:#{red:02x}{green:02x}{blue:02x};color:{ink}}}")
    return "\n".join(lines) + "\n"
