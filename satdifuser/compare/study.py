"""What a comparison looks into beside its runs: probes of its frozen encoders, and the likeness of networks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from satdifuser.compare.grid import Cell, digest
from satdifuser.compare.plan import Planned
from satdifuser.compare.shared import Shared
from satdifuser.compare.worker import result
from satdifuser.engine.files import DamagedError
from satdifuser.errors import UserError, one_line
from satdifuser.pooling import is_pooling
from satdifuser.report.content import Failure
from satdifuser.report.depth.content import Depths, Likeness, Probed
from satdifuser.settings.commands import CompareSettings
from satdifuser.settings.studies import CkaConfig, CkaSettings, ProbeConfig, ProbeSettings

PASSING = ("batch_size", "workers")  # how fast, and not what comes out
SPLIT = "test"


@dataclass(frozen=True)
class Study:
    """A probe or a likeness of a comparison: what the report calls it, its settings, and the runs that it needs.

    `names` are the model, or the two sides; `needs` is the store or the run that it reads, `second` and `other` are the
    other store and a run that reads it.
    """

    names: tuple[str, ...]
    cell: Cell
    settings: ProbeSettings | CkaSettings
    needs: Path
    models: tuple[str, ...] = ()
    second: Path | None = None
    other: Cell | None = None

    def __str__(self) -> str:
        return f"{'probes' if self.probes else 'likeness'} of {' and '.join(self.names)}"

    @property
    def probes(self) -> bool:
        return isinstance(self.settings, ProbeSettings)

    @property
    def folder(self) -> Path:
        return Path(self.settings.output)

    @property
    def done(self) -> bool:
        return (self.folder / ("probe.json" if self.probes else "cka.json")).is_file()

    def ready(self, shared: Shared) -> bool:
        """Whether what it reads is there, or was and can be made again: what has failed is told of the runs."""
        if self.needs.suffix != ".zarr":
            return result(self.needs) is not None
        return all(path.is_dir() or shared.extraction(cell) is not None for path, cell in self.stores())

    def stores(self) -> list[tuple[Path, Cell]]:
        """The stores that it reads, each with a run that reads it, too."""
        if self.needs.suffix != ".zarr":
            return []
        second = [] if self.second is None or self.other is None else [(self.second, self.other)]
        return [(self.needs, self.cell), *second]

    def saved(self) -> Probed | Likeness | None:
        """What it has found; None where that is not there, or damaged, and is to be found again."""
        from satdifuser.study.saved import FILES, load

        try:
            return load(self.folder) if self.done else None
        except DamagedError:
            for name in FILES.values():
                (self.folder / name).unlink(missing_ok=True)
            return None


@dataclass(frozen=True)
class Looked:
    """What studies have found: (study, its result), and those that failed."""

    found: Sequence[tuple[Study, Any]] = ()
    failures: Sequence[Failure] = field(default_factory=tuple)

    @property
    def probes(self) -> list[tuple[Study, Probed]]:
        return [(study, one) for study, one in self.found if isinstance(one, Probed)]

    @property
    def depths(self) -> Depths:
        likeness = tuple(one for _, one in self.found if isinstance(one, Likeness))
        return Depths(probes=tuple(one for _, one in self.probes), likeness=likeness)


def studies(config: CompareSettings, planned: Sequence[Planned], shared: Shared) -> list[Study]:
    """Every study that the comparison asks for, the probes first."""
    probe, cka = probe_config(config), cka_config(config)
    runs = [run for run in planned if run.folder is not None and run.cell.fold in (None, 0)]  # of folds, the first
    found = [] if probe is None else _probes(config, probe, runs, shared)
    if cka is not None:
        found += _moved(config, cka, runs, shared)
        found += _pairs(config, cka, runs, shared)
    return found


def probe_config(config: CompareSettings) -> ProbeConfig | None:
    """What `probe:` of a comparison says; `true` stands for what is usual."""
    return _config("probe", config.probe, ProbeConfig)


def cka_config(config: CompareSettings) -> CkaConfig | None:
    return _config("cka", config.cka, CkaConfig)


def do(found: Sequence[Study], shared: Shared) -> Looked:
    """Do what is not done and read what is; one that fails is told, and the others go on."""
    from satdifuser.engine.progress import say

    there, failures = list[tuple[Study, Any]](), list[Failure]()
    for study in found:
        try:
            one = study.saved()
            if one is None and not study.ready(shared):
                continue
            one = _named(study, one or _do(study, shared))
        except Exception as error:  # of whatever kind, it is this study's and no other's
            say(f"{study}, {study.cell.task}: FAILED: {one_line(error)}")
            failures.append(Failure(str(study), study.cell.task, study.cell.budget, study.cell.seed, one_line(error)))
            continue
        there.append((study, one))
    return Looked(there, failures)


def show(found: Sequence[Study]) -> None:
    """Print what there is to do beside the runs."""
    from satdifuser.report.tables import show as show_table

    if not found:
        return
    rows = []
    for study in found:
        needs = "features" if study.needs.suffix == ".zarr" else "a run"
        rows.append([str(study), study.cell.task, needs, "done" if study.done else "to do"])
    show_table(f"{len(found)} studies after the runs", ["study", "task", "needs", "state"], rows)


def _do(study: Study, shared: Shared) -> Probed | Likeness:
    from satdifuser.engine.memory import give_back
    from satdifuser.study import cka, probe

    for path, cell in study.stores():
        if not path.is_dir():
            shared.extract(cell)
    settings = study.settings
    one = probe.probed(settings) if isinstance(settings, ProbeSettings) else cka.likeness(settings)
    give_back()
    return one


def _named(study: Study, one: Probed | Likeness) -> Probed | Likeness:
    """With the names that the comparison gives to models and tasks."""
    if isinstance(one, Probed):
        return replace(one, model=study.names[0], task=study.cell.task)
    first, second = study.names
    return replace(one, first=first, second=second)


def _probes(config: CompareSettings, probe: ProbeConfig, runs: Sequence[Planned], shared: Shared) -> list[Study]:
    """One for each task and store of features, with all budgets and seeds of the grid."""
    found = []
    for (task, store), cells in _stores(runs, shared).items():
        cell = cells[0]
        budgets = sorted({run.cell.budget for run in runs if run.cell.task == task})
        seeds = list(dict.fromkeys(run.cell.seed for run in runs if run.cell.task == task))
        asked = {name: value for name, value in probe.plain().items() if name not in PASSING}
        key = digest([store.stem, cell.config.task.plain(), asked, budgets, seeds, config.resamples])
        settings = ProbeSettings(
            encoder=cell.config.encoder,
            task=cell.config.task,
            data=cell.config.data,
            probe=probe,
            features=str(store),
            split=SPLIT,
            budgets=budgets,
            seeds=seeds,
            resamples=config.resamples,
            output=str(shared.output / "probes" / key),
        )
        name = name_of(cells)
        at_largest = max(cells, key=lambda one: one.budget)
        found.append(Study((name,), at_largest, settings, store, models=tuple(one.model for one in cells)))
    return found


def _moved(config: CompareSettings, cka: CkaConfig, runs: Sequence[Planned], shared: Shared) -> list[Study]:
    """Each model whose encoder trains, at its largest budget and first seed, against what it began with."""
    found, seen = [], set()
    for run in sorted(runs, key=lambda run: -run.cell.budget):
        cell, place = run.cell, (run.cell.task, run.cell.model)
        if place in seen or run.folder is None or not shared.facts(cell).trains:
            continue
        seen.add(place)
        modules = "all" if cka.modules == "taps" else cka.modules
        asked = cka.but(modules=modules)
        key = digest([run.folder.name, _asked(asked), "moved"])
        settings = CkaSettings(
            data=cell.config.data,
            cka=asked,
            first=str(run.folder),
            split=SPLIT,
            output=str(shared.output / "cka" / key),
        )
        names = (f"{cell.model} on {cell.task}, finetuned", "its origin")
        found.append(Study(names, cell, settings, run.folder, models=(cell.model,)))
    order = [(run.cell.task, run.cell.model) for run in runs]
    return sorted(found, key=lambda study: order.index((study.cell.task, study.cell.model)))


def _pairs(config: CompareSettings, cka: CkaConfig, runs: Sequence[Planned], shared: Shared) -> list[Study]:
    """Every two frozen encoders whose stores hold the same samples, once, whatever tasks they serve."""
    if config.store.keep == "latents":
        return []
    pool = config.store.keep if is_pooling(config.store.keep) else cka.pool
    asked = cka.but(modules="taps", pool=pool)
    by_samples: dict[str, dict[Path, tuple[str, Cell]]] = {}
    for (_, store), cells in _stores(runs, shared).items():
        samples = shared.data_digest(cells[0])
        by_samples.setdefault(samples, {}).setdefault(store, (name_of(cells), cells[0]))
    found = []
    for stores in by_samples.values():
        for (one, (first, cell)), (other, (second, its)) in itertools.combinations(stores.items(), 2):
            key = digest([one.stem, other.stem, _asked(asked), "pair"])  # in this order: rows, columns
            settings = CkaSettings(
                data=cell.config.data,
                cka=asked,
                first=str(one),
                second=str(other),
                split=SPLIT,
                output=str(shared.output / "cka" / key),
            )
            found.append(Study((first, second), cell, settings, one, second=other, other=its))
    return found


def _stores(runs: Sequence[Planned], shared: Shared) -> dict[tuple[str, Path], list[Cell]]:
    """(task, store of features) -> the runs that read it."""
    found: dict[tuple[str, Path], list[Cell]] = {}
    for run in runs:
        store = shared.features(run.cell)
        if store is not None:
            found.setdefault((run.cell.task, store), []).append(run.cell)
    return found


def name_of(cells: Sequence[Cell]) -> str:
    """What models of one encoder have in common in their names; else the first one's name, and how many more there are.

    >>> from types import SimpleNamespace as S
    >>> name_of([S(model="UNet gw"), S(model="UNet lw")]), name_of([S(model="gw"), S(model="lw")])
    ('UNet', 'gw and 1 more')
    """
    names = list(dict.fromkeys(cell.model for cell in cells))
    words = [word for word in names[0].split() if all(word in name.split() for name in names)]
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return " ".join(words).strip(" +") or names[0] + others


def _asked(cka: CkaConfig) -> dict[str, Any]:
    return {name: value for name, value in cka.plain().items() if name not in PASSING}


def _config(name: str, given: Any, kind: Any) -> Any:
    if given is None or given is False:
        return None
    values = {} if given is True else given
    if not isinstance(values, Mapping):
        raise UserError(f"{name} is {given!r}: give true, null, or names with values, as {name}={{...}}")
    return kind(**{str(key): value for key, value in values.items()})
