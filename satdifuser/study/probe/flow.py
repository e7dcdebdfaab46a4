"""A study of depth by probes, from its settings to its result: source -> rows -> probes -> points -> probe.json."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satdifuser.engine.known import Known
from satdifuser.engine.progress import say
from satdifuser.report.depth.content import Probed
from satdifuser.study.folder import alone
from satdifuser.study.probe.learning import probes_for
from satdifuser.study.probe.ledger import Ledger
from satdifuser.study.probe.questions import Plan
from satdifuser.study.probe.scoring import points
from satdifuser.study.probe.source import Source
from satdifuser.study.probe.views import columns, maps_of
from satdifuser.study.saved import FILES, load_file, save

if TYPE_CHECKING:
    from satdifuser.settings.studies import ProbeSettings

# What says where and how fast, and not what comes out.
PASSING = ("output", "overwrite", "features", "check_features")
PASSING_PROBE = ("batch_size", "workers")


def probed(settings: ProbeSettings, quiet: bool = False) -> Probed:
    """Probe what is not probed yet, and write `probe.json`; what is there already, with these settings, is read."""
    folder = Path(settings.output).expanduser()
    with alone(folder):
        return _probed(settings, folder, quiet)


def _probed(settings: ProbeSettings, folder: Path, quiet: bool) -> Probed:
    began = time.monotonic()
    source = Source.open(settings)
    task, chosen = source.task, settings.select.of(source.spec)
    read = maps_of(source.spec, chosen) if task.dense else columns(source.spec, chosen, settings.probe.views)
    plan = Plan(probes_for(task, settings.probe.probes), settings.budgets, settings.seeds, task.dense)
    ledger = Ledger(folder, _key(settings, source), settings.overwrite)
    path = folder / FILES[Probed]
    if path.is_file():
        if not quiet:
            say(f"{folder} holds these probes already")
        found: Probed = load_file(path, Probed)
        return found
    if ledger.values and not quiet:
        say(f"going on in {folder}: {len(ledger.values)} probes are there")
    drawn_by = int(settings.data.get("seed", 0) or 0)
    if task.dense:
        from satdifuser.study.probe.dense import answer
    else:
        from satdifuser.study.probe.whole import answer
    guess = answer(source, read, plan, settings.probe, drawn_by, ledger)
    found = Probed(
        model=source.spec.encoder,
        task=task.name,
        metric=task.monitor,
        split=settings.split,
        samples=len(source.splits["test"]),
        seeds=plan.seeds,
        points=tuple(points(task, ledger, read, plan, settings.resamples)),
        chance=guess,
        about=_about(settings, source, time.monotonic() - began),
    )
    save(found, folder)
    ledger.close()
    return found


def _key(settings: ProbeSettings, source: Source) -> dict[str, Any]:
    """All that the answers depend on: settings, features and samples."""
    plain = settings.plain()
    kept = {name: value for name, value in plain.items() if name not in PASSING}
    kept["probe"] = {name: value for name, value in plain["probe"].items() if name not in PASSING_PROBE}
    return {"settings": kept, "features": source.spec.to_dict(), "data": asdict(Known.of(source.splits))}


def _about(settings: ProbeSettings, source: Source, seconds: float) -> dict[str, Any]:
    return {
        "settings": settings.plain(),
        "spec": source.spec.to_dict(),
        "splits": {role: len(data) for role, data in source.splits.items()},
        "explain": source.task.explain(),
        "device": str(source.device),
        "seconds": round(seconds, 3),
    }
