"""A picture of a scene and its map side by side, with what the colours mean and how large the ground is."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satdifuser.data.files.opened import Place
from satdifuser.engine.files import aside
from satdifuser.scenes.looks import BLANK, Looked, look, painted, rgb, scene_picture, span
from satdifuser.scenes.scene import Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 700  # px of a picture at most
DPI = 100
LEGEND, LINE, GAP, HEAD, FOOT = 260, 24, 20, 64, 56  # px
THIN = 8  # times as long as wide: such a scene is drawn wider than it is
MOST, LONG = 24, 26  # classes that are listed, letters of a name


def write_preview(scene: Scene, path: str, out: str, title: str = "") -> str:
    """Draw a scene and the map at `path`; gives where the picture is."""
    place = scene.place
    picture, said = scene_picture(scene, SIDE)
    looked = look(path, SIDE)
    entries = legend_of(looked)
    wide, high = _panel(place.height, place.width)
    inner = max(high, LINE * len(entries) if len(entries) > 1 else 0, 80)
    figure, axes = _sheet(wide, high, inner, LEGEND if entries or looked.kind == "values" else GAP)
    map_said = {"embedding": "embedding (first three principal components)", "values": "values"}.get(looked.kind, "map")
    if looked.kind == "probabilities":
        map_said = "most likely class (paler: less likely)"
    whole = (0.0, float(place.width), float(place.height), 0.0)
    thin = max(place.height, place.width) > THIN * min(place.height, place.width)
    drawn = (picture, f"scene ({said})", whole), (painted(looked), map_said, _extent(looked, place) or whole)
    for one, (image, words, extent) in zip(axes, drawn, strict=True):
        one.imshow(image, interpolation="nearest", extent=extent, aspect="auto" if thin else "equal")
        one.set_xlim(0, place.width)
        one.set_ylim(place.height, 0)
        one.set_title(f"{words}, not to scale" if thin else words, fontsize=10, loc="left", color="#333333")
        one.set_xticks([])
        one.set_yticks([])
    figure.text(GAP / figure.get_figwidth() / DPI, 1 - 18 / figure.get_figheight() / DPI, _short(title, 110),
                fontsize=12, va="center", weight="bold")  # fmt: skip
    _legend(figure, entries, wide, inner)
    if looked.kind == "values" and looked.there.any():
        _scale(figure, looked, wide, high, inner)
    _ground(axes[0], place)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    target = Path(out)
    with aside(target, target.with_name(f"{target.name}.partial")) as partial:
        partial.write_bytes(content.getvalue())
    return str(target)


def _extent(looked: Looked, place: Place) -> tuple[float, float, float, float] | None:
    """Left, right, bottom and top of a map in px of the scene: tiles reach beyond its end."""
    if looked.grid is None:
        return None
    (a, b, c, d, e, f), height, width = looked.grid
    p, q, x, s, t, y = place.transform
    area = p * t - q * s
    corners = [(c, f), (a * width + b * height + c, d * width + e * height + f)]
    (left, top), (right, bottom) = (
        ((t * (u - x) - q * (v - y)) / area, (p * (v - y) - s * (u - x)) / area) for u, v in corners
    )
    return left, right, bottom, top


def legend_of(looked: Looked) -> list[tuple[tuple[int, int, int], str]]:
    """The classes that occur, each with its share of the pixels that have data; the most frequent of very many."""
    gone = [(BLANK, "no data")] if not looked.there.all() else []
    if looked.kind not in ("classes", "probabilities", "logits"):
        return gone
    numbers, counts = np.unique(looked.classes[looked.there], return_counts=True)
    kept = sorted(numbers[np.argsort(-counts, kind="stable")][:MOST].tolist())
    total = max(int(counts.sum()), 1)
    share = dict(zip(numbers.tolist(), (counts / total).tolist(), strict=True))
    found = [(rgb(looked.colours[n]), f"{_short(looked.names[n], LONG)}  {_percent(share[n])}") for n in kept]
    left = len(numbers) - len(kept)
    return [*found, *([((255, 255, 255), f"and {left} more")] if left else []), *gone]


def _percent(share: float) -> str:
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _panel(height: int, width: int) -> tuple[int, int]:
    """Px of a picture: its longer side is `SIDE`, its shorter one at least a little."""
    longest = max(height, width)
    return max(round(SIDE * width / longest), 240), max(round(SIDE * height / longest), 60)


def _sheet(wide: int, high: int, inner: int, right: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = GAP + 2 * (wide + GAP) + right, HEAD + inner + FOOT
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    bottom = (FOOT + inner - high) / height
    return figure, [
        figure.add_axes((left / width, bottom, wide / width, high / height), anchor="NW")
        for left in (GAP, GAP + wide + GAP)
    ]


def _legend(figure: Figure, entries: list[tuple[tuple[int, int, int], str]], wide: int, inner: int) -> None:
    from matplotlib.patches import Rectangle

    width, height = figure.get_figwidth() * DPI, figure.get_figheight() * DPI
    left = GAP + 2 * (wide + GAP)
    alone = len(entries) == 1 and entries[0][1] == "no data"
    for number, (colour, words) in enumerate(entries):
        y = FOOT if alone else height - HEAD - LINE * number - 16
        patch = Rectangle((left / width, y / height), 16 / width, 16 / height, transform=figure.transFigure,
                          facecolor=np.array(colour) / 255, edgecolor="#888888", linewidth=0.5)  # fmt: skip
        if words.startswith("and "):
            patch.set_visible(False)
        figure.add_artist(patch)
        figure.text((left + 24) / width, (y + 7) / height, words, fontsize=9, va="center")


def _scale(figure: Figure, looked: Looked, wide: int, high: int, inner: int) -> None:
    """The colours of values, from the lowest to the highest that is told apart."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high_value = span(looked.numbers[0])
    width, height = figure.get_figwidth() * DPI, figure.get_figheight() * DPI
    long = max(min(high, 300), 60)
    axes = figure.add_axes(
        ((GAP + 2 * (wide + GAP)) / width, (FOOT + inner - long) / height, 16 / width, long / height)
    )
    figure.colorbar(ScalarMappable(Normalize(low, high_value), "cividis"), cax=axes)


def _ground(axes: Axes, place: Place) -> None:
    """A bar of a round length under the scene, and an arrow where north is up."""
    metres = _metres(place)
    text = "no reference system" if place.crs is None else ""
    if metres is not None and math.isfinite(metres) and metres > 0:
        length = _round(metres * place.width * 0.3)
        share = length / metres / place.width
        axes.plot([0, share], [-0.0, -0.0], transform=_under(axes, 16), color="black", linewidth=3, clip_on=False,
                  solid_capstyle="butt")  # fmt: skip
        text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    axes.text(0, 0, text, transform=_under(axes, 32), fontsize=9, va="center", ha="left")
    _, b, _, d, e, _ = place.transform
    if place.crs is not None and b == 0 and d == 0 and e < 0:
        axes.annotate(
            "N", (1, 0), (1, 0), xycoords=_under(axes, 14), textcoords=_under(axes, 38), ha="center", va="center",
            fontsize=9, annotation_clip=False, arrowprops={"arrowstyle": "-|>", "color": "black", "shrinkA": 0},
        )  # fmt: skip


def _under(axes: Axes, px: float) -> Any:
    """Shares of the picture's width, so many px below it."""
    from matplotlib.transforms import ScaledTranslation

    figure: Any = axes.figure
    return axes.transAxes + ScaledTranslation(0, -px / DPI, figure.dpi_scale_trans)


def _metres(place: Place) -> float | None:
    """What a pixel measures along a row, at the middle of the scene."""
    if place.crs is None:
        return None
    a, _, _, d, e, f = place.transform
    if place.crs.is_geographic:
        latitude = math.radians(d * place.width / 2 + e * place.height / 2 + f)
        return math.radians(math.hypot(a * math.cos(latitude), d)) * 6_371_008.8
    try:
        return math.hypot(a, d) * float(place.crs.linear_units_factor[1])
    except Exception:  # rasterio's own kinds, of systems without a unit
        return None


def _round(length: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is no longer.

    >>> _round(7300), _round(0.3)
    (5000, 0.2)
    """
    power = 10.0 ** math.floor(math.log10(length))
    best = max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))
    return int(best) if best >= 1 else round(best, 12)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
