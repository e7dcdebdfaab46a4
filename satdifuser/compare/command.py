"""`satdifuser compare`: do what is missing of a grid of runs, and write one report over all of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from satdifuser.config import compose, composed, readable, trusted_by
from satdifuser.errors import UserError
from satdifuser.settings.commands import CompareSettings
from satdifuser.settings.trust import trusting

STUDIES = ("probe", "cka")


def run(overrides: Sequence[str], config_dirs: Sequence[str] = (), trust: Sequence[str] = ()) -> list[Path]:
    """Plan, share, launch, report; gives the report's files."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("satdifuser compare shares out whole runs: use hydra/launcher=joblib or slurm, not torchrun")
    with trusting(trusted_by(config_dirs, overrides)):
        return _run(overrides, config_dirs, trust)


def _run(overrides: Sequence[str], config_dirs: Sequence[str], trust: Sequence[str]) -> list[Path]:
    from satdifuser.compare import study
    from satdifuser.compare.baseline import check_floor
    from satdifuser.compare.content import content_of
    from satdifuser.compare.depths import depths_of
    from satdifuser.compare.folds import folded
    from satdifuser.compare.grid import expand
    from satdifuser.compare.launch import do
    from satdifuser.compare.plan import in_turn, plan, with_features
    from satdifuser.compare.scenes import maps_of, with_maps
    from satdifuser.compare.shared import Shared
    from satdifuser.compare.worker import tidy
    from satdifuser.engine.progress import say
    from satdifuser.report.html import write_report
    from satdifuser.report.repeat import command_line

    mine, passed, launcher = split_overrides(readable("compare", overrides), config_dirs)
    config: CompareSettings = _composed(mine, config_dirs)
    _check(config)
    composed("launch", [*launcher, "job=none"], config_dirs)  # a launcher that is not there is told before any work
    output = Path(config.output).resolve()
    tidy(output)
    shared = Shared(output, config.store, config.share_features)
    cells = expand(config, passed, config_dirs)
    check_floor(config.floor, [cell.model for cell in cells])
    planned = plan(folded(cells, config), shared)
    studies = study.studies(config, planned, shared)
    if config.dry_run:
        from satdifuser.compare.estimate import show

        show(planned, shared, config.threads)
        study.show(studies)
        return []
    todo = sum(run.missing for run in planned)
    say(f"{len(planned)} runs, {todo} to do, in {output}")
    try:
        planned = with_features(planned, shared)
        stopped = None
        for runs in in_turn(planned):
            stopped = stopped or do(runs, output / "jobs", launcher, config_dirs, config.threads)
        content = content_of(config, planned, shared, command_line("compare", overrides, config_dirs, trust))
        if any(one.ready(shared) and not one.done for one in studies):
            write_report(content, output)  # the studies may take long, and a report is better than none
            say(f"wrote {output / 'report.html'} of the runs; {len(studies)} studies are next")
        looked = study.do(studies, shared)
    except KeyboardInterrupt:
        say("what is done stays: the same command goes on from there")
        raise
    depths = depths_of(content, planned, shared, looked)
    content = with_maps(content, maps_of(config, planned, output))
    content = replace(content, depths=depths, failures=[*content.failures, *looked.failures])
    paths = write_report(content, output)
    for path in paths:
        say(f"wrote {path}")
    if stopped is not None or content.missing:
        reason = f"the launcher ended with {stopped}" if stopped is not None else "another process has them"
        raise UserError(f"{content.missing} of {len(planned)} runs are not done ({reason}): the same command goes on")
    if content.failures:
        first = content.failures[0]
        raise UserError(
            f"{len(content.failures)} of {len(planned) + len(studies)} runs{' and studies' if studies else ''} failed"
            f" (the report lists them), the first of {first.model} for {first.task}: {first.error}"
        )
    return paths


def _check(config: CompareSettings) -> None:
    """What would else be found wrong after hours."""
    from satdifuser.compare.scenes import check
    from satdifuser.compare.study import cka_config, probe_config
    from satdifuser.store import Form

    probe_config(config)
    cka_config(config)
    check(config)
    Form(config.store.dtype, config.store.keep)  # refuses what cannot be kept
    try:
        Path(config.output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={config.output} cannot be made ({error.strerror}): give another folder") from None


def split_overrides(
    overrides: Sequence[str], config_dirs: Sequence[str] = ()
) -> tuple[list[str], list[str], list[str]]:
    """Those of compare's own settings, those passed on to every `satdifuser train`, and those of Hydra's launchers.

    What the experiment calls by a name of its own, such as `steps: 120`, is a setting of compare.
    """
    experiment = [override for override in overrides if _top(override) == "experiment"]
    own = {*composed("compare", experiment, config_dirs), "experiment"} - {*composed("train", [])}
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for override in overrides:
        top = _top(override)
        parts[0 if top in own else 2 if top == "hydra" else 1].append(override)
    return parts


def _composed(overrides: Sequence[str], config_dirs: Sequence[str]) -> CompareSettings:
    """The settings; `probe` and `cka` are groups to Hydra, but true, false and null are as good as a choice."""
    words = {"true": "default", "default": "default", "false": None, "null": None}
    split = [(override, *override.partition("=")[::2]) for override in overrides]
    chosen = {name: words[value] for _, name, value in split if name in STUDIES and value in words}
    rest = [override for override, name, value in split if name not in STUDIES or value not in words]
    switched = [f"{name}={choice}" for name, choice in chosen.items() if choice is not None]
    config: CompareSettings = compose("compare", [*switched, *rest], config_dirs)
    return config.but(**{name: None for name, choice in chosen.items() if choice is None})


def _top(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").replace("/", ".").partition(".")[0]
