"""Sentences of a report: who leads, what fewer labels did, whether training had converged, when the runs were made."""

from __future__ import annotations

from collections.abc import Sequence

from satdifuser.report import numbers
from satdifuser.report.content import Made, Row
from satdifuser.report.ranking import Place, models_of

SHOWN = 8  # sentences on fewer labels


def runs(made: Made) -> str:
    """When the runs were made and with what.

    >>> runs(Made("2026-01-01", "2026-01-02", ("0123456789ab+changes",), ("0.2.0",)))
    'The runs were made from 2026-01-01 to 2026-01-02 (UTC) with satdifuser 0.2.0, commit 0123456789ab with changes.'
    """
    if not (made.first or made.commits):
        return ""
    days = "" if not made.first else f" on {made.first}" if made.first == made.last else ""
    days = days or (f" from {made.first} to {made.last}" if made.first else "")
    with_ = f" with satdifuser {' and '.join(made.versions)}" if made.versions else ""
    named = [commit.replace("+changes", " with changes") for commit in made.commits]
    commits = f", commit{'s' if len(named) > 1 else ''} {' and '.join(named)}" if named else ", of an unknown commit"
    return f"The runs were made{days}{' (UTC)' if made.first else ''}{with_}{commits}."


def convergence(rows: Sequence[Row]) -> str:
    """In how many runs training had converged; nothing where no run says.

    >>> class Some: ended = {"patience": 2, "max_steps": 1}
    >>> convergence([Some]).partition(":")[0]
    'Training had converged in 2 of 3 runs'
    """
    every = sum(sum(row.ended.values()) for row in rows)
    cut = sum(row.ended.get("max_steps", 0) for row in rows)
    if not every:
        return ""
    if not cut:
        return f"Training had converged in {'the only run' if every == 1 else f'all {every} runs'}."
    left = "no run" if cut == every else f"{every - cut} of {every} runs"
    them = "all of them" if cut == every and every > 1 else "it" if cut == 1 else "the others"
    return (
        f"Training had converged in {left}: {them} ended at the most steps allowed, while validation might still have"
        " risen, so with more steps the order of models may change."
    )


def fewer(found: Sequence[Place]) -> list[str]:
    """A sentence for each model and task in which fewer labels beat more, those with the largest gap first."""
    gaps: list[tuple[float, str]] = []
    for (task, model), mine in models_of(found).items():
        scored = [place for place in mine if place.score is not None]
        pairs = [(few, many) for few in scored for many in scored if few.row.budget < many.row.budget]
        worse = [(_gap(few, many), few, many) for few, many in pairs if _gap(few, many) > 0]
        if not worse:
            continue
        gap, few, many = max(worse, key=lambda one: one[0])
        less, more = numbers.percent(few.row.budget), numbers.percent(many.row.budget)
        metric = numbers.metric_name(few.section.metric)
        sentence = (
            f"{model} on {task}: with {less} of the labels it scores higher than with {more}"
            f" ({metric} {numbers.score(few.score)} and {numbers.score(many.score)})"
        )
        gaps.append((gap, sentence + (_chance(few, many) or ".")))
    gaps.sort(key=lambda one: -one[0])
    said = [sentence for _, sentence in gaps[:SHOWN]]
    more_of_them = len(gaps) - len(said)
    return said + (
        [f"The same holds for {numbers.plural(more_of_them, 'other model')}, by less."] if more_of_them else []
    )


def _gap(few: Place, many: Place) -> float:
    return (few.score or 0.0) - (many.score or 0.0)


def _chance(few: Place, many: Place) -> str:
    """Whether the intervals of both scores overlap, and whether the run with more labels was cut short."""
    first, second, said = few.estimate, many.estimate, []
    if first and second and numbers.known(first.low) and numbers.known(second.high) and first.low <= second.high:
        said.append("their intervals overlap, so this may be luck")
    if many.row.ended.get("max_steps"):
        said.append("with more labels training had not converged")
    return f"; {'; '.join(said)}." if said else ""


def leads(place: Place) -> str:
    """The place with the highest score, in the words of a chart."""
    estimate = place.estimate
    assert estimate is not None  # only places with a score are drawn
    between = f"[{numbers.score(estimate.low)}, {numbers.score(estimate.high)}]"
    return (
        f"{place.row.model} {'is best' if place.best else 'is highest'} with {numbers.score(estimate.value)} {between}"
    )
