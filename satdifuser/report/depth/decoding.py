"""Decoders against the depth that feeds them, and what a fusion head's weights say beside the probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from satdifuser.report import numbers
from satdifuser.report.charts import short
from satdifuser.report.depth import drawing as draw
from satdifuser.report.depth.content import Decoded, Weighed
from satdifuser.report.depth.drawing import Drawn
from satdifuser.report.figures import shorten

READ = (
    "Each point is a model whose decoder gets the features of that depth alone; all else of its settings is the same."
    " Star: each decoder's best depth. Bands: 95 % bootstrap intervals over test samples. Right: what a decoder's model"
    " has of trainable parameters, and how long it trained, means over depths; a small dot is one depth."
)
WEIGHED = (
    "Above: what a probe of each place alone scores. Below: the weight that the fusion head has learned for the same"
    " place, where 1 is an equal share. If both rise and fall together, the head prefers what a probe finds best."
)


def families(found: Sequence[Decoded]) -> list[list[Decoded]]:
    """The decoded of each task and family."""
    groups: dict[tuple[str, str], list[Decoded]] = {}
    for one in found:
        groups.setdefault((one.task, one.family), []).append(one)
    return list(groups.values())


def best_depths(found: Sequence[Decoded]) -> list[tuple[float, str]]:
    """Budget, and in words the best depth of a decoder with it; the largest budget comes first."""
    words = []
    for budget in sorted({one.budget for one in found}, reverse=True):
        for decoder in dict.fromkeys(one.decoder for one in found):
            mine = [one for one in found if (one.decoder, one.budget) == (decoder, budget)]
            known = [one for one in mine if np.isfinite(draw.finite(one.estimate))]
            if known:
                best = max(known, key=lambda one: one.estimate.value)
                score = f"{numbers.metric_name(best.metric)} {draw.said(best.estimate)}"
                words.append((budget, f"{decoder}: best at {best.tap} with {score}"))
    return words


def against_depth(found: Sequence[Decoded]) -> Drawn:
    """Of one family: a panel for each budget, a line for each decoder, and what decoders cost."""
    task, family = found[0].task, found[0].family
    budgets = sorted({one.budget for one in found})
    decoders = list(dict.fromkeys(one.decoder for one in found))
    depths = sorted({(one.depth, one.tap) for one in found})
    at = {place: n for n, place in enumerate(depths)}
    style = draw.looks(decoders)
    wide = min(max(draw.width_for(len(depths)), 2.8), (draw.WIDEST - 4.6) / len(budgets))
    words = [f"{numbers.percent(budget)} of the labels, {text}" for budget, text in best_depths(found)]
    with draw.drawing(len(budgets) * wide + 4.6, 3.6) as figure:
        axes = figure.subplots(1, len(budgets) + 2, width_ratios=[wide] * len(budgets) + [1.5, 1.5])
        for ax in axes[1 : len(budgets)]:
            ax.sharey(axes[0])
            ax.tick_params(labelleft=False)
        for ax, budget in zip(axes, budgets, strict=False):
            ax.set_title(f"{numbers.percent(budget)} of the labels", fontsize=9)
            for decoder in decoders:
                mine = sorted(
                    (one for one in found if (one.decoder, one.budget) == (decoder, budget)), key=lambda one: one.depth
                )
                x = [at[one.depth, one.tap] for one in mine]
                estimates, look = [one.estimate for one in mine], style[decoder]
                draw.line(ax, x, estimates, look, short(decoder, 26))
                values = [draw.finite(one) for one in estimates]
                draw.dots(ax, x, values, look, True, 3.5)
                if np.isfinite(values).any():
                    best = int(np.nanargmax(values))
                    draw.star(ax, x[best], values[best], look)
            draw.label_taps(ax, [tap for _, tap in depths], wide)
        axes[0].set_ylabel(numbers.metric_name(found[0].metric))
        top = [one for one in found if one.budget == budgets[-1]]
        _costs(axes[-2], decoders, top, "parameters", numbers.count, style)
        _costs(axes[-1], decoders, top, "seconds", numbers.seconds, style)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        alt = f"Decoders of {family} on {task} against the depth that feeds them: {'; '.join(words)}."
        return draw.drawn(figure, f"decoders {task} {family}", alt, f"{family}, {task}. {READ}")


def _costs(ax: Any, decoders: Sequence[str], found: Sequence[Decoded], what: str, show: Any, style: Any) -> None:
    """A bar for each decoder, with its number."""
    ax.grid(axis="y", visible=False)
    ax.set_title({"parameters": "trainable parameters", "seconds": "training time"}[what], fontsize=9)
    top = max((float(getattr(one, what)) for one in found), default=1.0) or 1.0
    for n, decoder in enumerate(reversed(decoders)):
        values = [float(getattr(one, what)) for one in found if one.decoder == decoder]
        if not values:
            continue
        mean = float(np.mean(values))
        ax.barh([n], [mean], color=style[decoder].colour, height=0.5, alpha=0.85)
        ax.plot(values, [n] * len(values), "o", ms=2.5, color="#333333")
        ax.text(max([mean, *values]) + 0.04 * top, n, show(mean), va="center", fontsize=7)
    ax.set_xlim(0, 1.6 * top)
    ax.set_xticks([])
    ax.set_yticks(range(len(decoders)), [short(name, 14) for name in reversed(decoders)], fontsize=7)


def weights_beside(one: Weighed) -> Drawn:
    """A probe's score over places above, and the learned weight of the same places below."""
    taps, steps = draw.taps_of(one.places), draw.steps_of(one.places)
    where = {tap: n for n, tap in enumerate(taps)}
    names = [draw.step_name(step) for step in steps]
    style = draw.looks(names)
    wide = draw.width_for(len(taps))
    with draw.drawing(wide + 2.6, 4.6) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        for step, name in zip(steps, names, strict=True):
            mine = [n for n, place in enumerate(one.places) if place.timestep == step]
            mine.sort(key=lambda n: where[one.places[n].tap])
            x, look = [where[one.places[n].tap] for n in mine], style[name]
            draw.line(above, x, [one.estimates[n] for n in mine], look, name)
            draw.dots(above, x, [draw.finite(one.estimates[n]) for n in mine], look, True, 3.5)
            below.plot(x, [one.weights[n] for n in mine], color=look.colour, ls=look.line, marker=look.marker, ms=3.5)
        below.axhline(1, color="#777777", ls=(0, (4, 3)), lw=0.9, zorder=1)
        above.set_ylabel(f"{numbers.metric_name(one.metric)} of the probe")
        below.set_ylabel("learned weight")
        draw.label_taps(below, taps, wide)
        if len(steps) > 1:
            figure.legend(*above.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        words = agreement(one)
        return draw.drawn(
            figure, f"weights {one.task} {one.model}", f"{one.model} on {one.task}: {words}", f"{words} {WEIGHED}"
        )


def agreement(one: Weighed) -> str:
    """Spearman's correlation in words, with where the head and the probe see most."""
    where = f"{one.probe}, {one.view}, {numbers.percent(one.budget)} of the labels"
    count = f"{len(one.places)} places"
    if not np.isfinite(one.rank):
        return f"The weights and the scores of a probe ({where}) at {count} have no order to compare."
    weight = int(np.argmax(one.weights))
    scores = [draw.finite(estimate) for estimate in one.estimates]
    score = int(np.nanargmax(scores))
    return (
        f"Spearman's rank correlation of the learned weights with the probe's scores ({where}) is"
        f" {one.rank:+.2f} over {count}. Most weight: {shorten(draw.name_of(one.places[weight]))}"
        f" ({one.weights[weight]:.2f} equal shares); best probe: {shorten(draw.name_of(one.places[score]))}"
        f" ({numbers.score(scores[score])})."
    )
