"""The figure of docs/evidence.md: score over the share of labels, for each of its grids, from the tables beside them.

    python tools/evidence_figures.py

Reads docs/results/*/ranking.csv, writes docs/figures/evidence.svg. A grid whose table is not there is left out.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
# folder of docs/results -> title, metric, and the models that the question is about, each with its kind
GRIDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "eurosat": (
        "EuroSAT, RGB: accuracy",
        "accuracy",
        {
            "diffusion, logistic": "diffusion",
            "diffusion + gw": "diffusion",
            "random UNet, logistic": "untrained",
            "Galileo, logistic": "Galileo",
            "ViT, logistic": "ViT",
            "ImageNet CNN, logistic": "ImageNet",
            "random patches 2048, logistic": "floor",
            "colours, logistic": "floor",
        },
    ),
    "forest": (
        "Amazon forest, RGB: mIoU",
        "miou",
        {
            "diffusion + gw": "diffusion",
            "diffusion + lw": "diffusion",
            "random UNet + gw": "untrained",
            "Galileo + gw": "Galileo",
            "ViT + gw": "ViT",
            "ImageNet CNN + gw": "ImageNet",
            "random patches 256": "floor",
            "colours of pixels": "floor",
        },
    ),
    "multispectral": (
        "EuroSAT, 13 bands: accuracy",
        "accuracy",
        {
            "diffusion RGB, logistic": "diffusion",
            "Galileo ten bands, logistic": "Galileo",
            "ViT RGB + DEFLECT": "ViT",
            "colours 13 bands, logistic": "floor",
            "random patches 13 bands, logistic": "floor",
        },
    ),
    "clouds": (
        "Clouds, Landsat-8: mIoU",
        "miou",
        {
            "diffusion RGB + gw": "diffusion",
            "random UNet RGB + gw": "untrained",
            "Galileo RGB NIR + gw": "Galileo",
            "ViT RGB + gw": "ViT",
            "random patches RGB NIR, linear": "floor",
            "U-Net RGB NIR, from scratch": "scratch",
        },
    ),
}
COLOURS = {
    "diffusion": "#c2410c",
    "untrained": "#f0a878",
    "Galileo": "#1d4ed8",
    "ViT": "#7c3aed",
    "ImageNet": "#0f766e",
    "floor": "#6b7280",
    "scratch": "#a16207",
}
STYLES = ("-", "--", ":", "-.")


def read(folder: Path, metric: str) -> dict[str, list[tuple[float, float, float, float]]]:
    """Model -> budget, mean and interval, by budget."""
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    with (folder / "ranking.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            numbers = (float(row[f"{metric}_{part}"]) for part in ("mean", "low", "high"))
            found.setdefault(row["model"], []).append((float(row["budget_percent"]), *numbers))  # type: ignore[arg-type]
    return {model: sorted(points) for model, points in found.items()}


def apart(wanted: Sequence[float], least: float) -> list[float]:
    """Heights of labels that are near the wanted ones, in their order, and at least so far from each other."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [wanted[i] for i in order]
    for _ in range(200):
        for i in range(len(placed) - 1):
            short = least - (placed[i + 1] - placed[i])
            if short > 0:
                placed[i], placed[i + 1] = placed[i] - short / 2, placed[i + 1] + short / 2
    found = [0.0] * len(wanted)
    for place, i in zip(placed, order, strict=True):
        found[i] = place
    return found


def draw(axes: Any, title: str, shown: dict[str, str], found: dict[str, list[Any]]) -> None:
    """One grid: a line with its interval for each model, and the model's name where the line ends."""
    ends: list[tuple[str, float, str]] = []
    seen: dict[str, int] = {}
    for model, kind in shown.items():
        if model not in found:
            raise SystemExit(f"{title}: no model {model!r} among {', '.join(found)}")
        budgets, means, lows, highs = zip(*found[model], strict=True)
        style = STYLES[seen.setdefault(kind, -1) + 1]
        seen[kind] += 1
        axes.plot(budgets, means, style, color=COLOURS[kind], marker="o", markersize=3, linewidth=1.6)
        axes.fill_between(budgets, lows, highs, color=COLOURS[kind], alpha=0.1, linewidth=0)
        ends.append((model, means[-1], COLOURS[kind]))
    axes.set_xscale("log")
    ticks = sorted({point[0] for model in shown for point in found[model]})
    axes.set_xticks(ticks, [f"{tick:g} %" for tick in ticks])
    axes.minorticks_off()
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    low, high = axes.get_ylim()
    heights = apart([end for _, end, _ in ends], 0.06 * (high - low))
    for (model, _, colour), height in zip(ends, heights, strict=True):
        axes.annotate(
            model,
            (1.02, height),
            xycoords=("axes fraction", "data"),
            color=colour,
            fontsize=7.5,
            va="center",
            annotation_clip=False,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=str(DOCS / "results"))
    parser.add_argument("--output", default=str(DOCS / "figures" / "evidence.svg"))
    args = parser.parse_args()
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "evidence"  # the same bytes for the same numbers
    import matplotlib.pyplot as plt

    there = [name for name in GRIDS if (Path(args.results) / name / "ranking.csv").is_file()]
    if not there:
        raise SystemExit(f"no ranking.csv in folders of {args.results}")
    rows = -(-len(there) // 2)
    figure, places = plt.subplots(
        rows, min(2, len(there)), figsize=(12, 3.9 * rows), squeeze=False, layout="constrained"
    )
    for axes, name in zip(places.flat, there, strict=False):
        title, metric, shown = GRIDS[name]
        draw(axes, title, shown, read(Path(args.results) / name, metric))
    for axes in list(places.flat)[len(there) :]:
        axes.axis("off")
    figure.supxlabel("share of the labels", fontsize=9)
    figure.savefig(args.output, metadata={"Date": None})
    print(args.output)


if __name__ == "__main__":
    main()
