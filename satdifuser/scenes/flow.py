"""What predict and embed share: windows of a scene through a model into an output, alone or with other processes."""

from __future__ import annotations

import math
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from satdifuser.data.files.names import shown
from satdifuser.errors import UserError
from satdifuser.scenes.answers import Answers
from satdifuser.scenes.done import Done
from satdifuser.scenes.out.base import Output, Target
from satdifuser.scenes.scene import Scene
from satdifuser.scenes.strip import runs_of
from satdifuser.scenes.units import Unit, share
from satdifuser.scenes.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from satdifuser.settings.scenes import SceneSettings
    from satdifuser.store.processes import Processes

CACHE = "128"  # MB


def carry(
    scene: Scene,
    answers: Answers,
    windows: Windows,
    output: Output,
    target: Target,
    settings: SceneSettings,
    part: tuple[int, int] = (0, 1),
) -> Done:
    """This part's share of the units that are not there yet; whoever finds all of them there makes the file.

    The bytes are the same whoever computed which unit, in whatever order, and however often anyone was killed.
    """
    from satdifuser.engine.progress import bar
    from satdifuser.scenes.stream import Behind, plan, stream

    began = time.monotonic()
    check_apart(scene, settings)
    units = plan(target.place, windows, answers.channels, len(scene.sensor))
    output.begin(settings.overwrite)
    mine = share(units, *part)
    todo = output.todo(mine)
    computed = 0
    with bar("windows") as shown, Behind() as writer:
        task = shown.add_task(scene.name, total=windows_of(windows, todo))

        def tick(passed: int, done: int) -> None:
            nonlocal computed
            computed += done
            shown.advance(task, passed)

        for unit, values, valid in stream(scene, answers, windows, todo, batch_of(settings), tick):
            writer.do(partial(output.write, unit, values, valid))
    paths = output.finish()
    step = windows.step**2
    pixels = sum((u.rows.stop - u.rows.start) * (u.columns.stop - u.columns.start) * step for u in todo)
    seconds = time.monotonic() - began
    return Done(tuple(paths), windows_of(windows, mine), computed, seconds, bool(paths), pixels)


def check_apart(scene: Scene, settings: SceneSettings) -> None:
    """Refuse to write over what is read: `overwrite=true` is meant for maps, and a scene may be the only copy."""
    from satdifuser.scenes.source.raster import is_remote

    out = Path(settings.out)
    pictures = [out.with_suffix(".png")] if settings.preview else []
    sources = [Path(file).expanduser().resolve() for file in scene.files if not is_remote(file)]
    for path in (out, *pictures):
        there = path.expanduser().resolve()
        for source in sources:
            inside = there in source.parents or (source in there.parents and source.suffix.lower() == ".zarr")
            if there == source or inside:
                what = "the picture of preview=true" if path in pictures else f"out={shown(settings.out)}"
                raise UserError(f"{what} would be written over the scene itself ({shown(source)}): give another out")


def begun(settings: SceneSettings, part: tuple[int, int]) -> tuple[Processes, tuple[int, int]]:
    """The processes that torchrun has started, and which part this one does; threads as they are asked for."""
    import torch

    from satdifuser.store.processes import Processes

    processes = Processes.launched()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return processes, (processes.rank, processes.world) if part[1] == 1 else part


def batch_of(settings: SceneSettings) -> int:
    """How many windows go through the model at once."""
    import torch

    return settings.window.batch_size or (64 if torch.cuda.is_available() else 8)


def bound_cache() -> None:
    """GDAL keeps blocks of files up to a twentieth of the machine's memory, unless it is told before it reads one."""
    os.environ.setdefault("GDAL_CACHEMAX", CACHE)


def windows_of(windows: Windows, units: Sequence[Unit]) -> int:
    """How many windows go by for these units."""
    return sum(
        len(windows.over(run[0].rows.start, run[-1].rows.stop))
        * len(windows.over(run[0].columns.start, run[0].columns.stop))
        for run in runs_of(units)
    )


def announced(scene: Scene, windows: Windows, target: Target, channels: int, out: str) -> str:
    """What `dry_run` says: how much there is to do and how large what comes of it is at most."""
    from satdifuser.scenes.stream import plan
    from satdifuser.store.forms import bytes_text

    units = plan(target.place, windows, channels, len(scene.sensor))
    form = target.form
    layers = 1 if form.kind == "classes" else channels
    each = {"uint8": 1, "int8": 1, "uint16": 2, "float16": 2}.get(form.dtype, 4)
    many = "s" * (len(units) != 1)
    size = math.prod((target.place.height, target.place.width, layers, each))
    return (
        f"{scene.name}: {scene.place.width} x {scene.place.height} px in {windows_of(windows, units)} windows of"
        f" {windows.size} px (margin {windows.before}, overlap {windows.overlap}) and {len(units)} unit{many} -> {out}:"
        f" {target.place.width} x {target.place.height} px, {layers} x {form.dtype}, {bytes_text(size)} uncompressed"
    )
