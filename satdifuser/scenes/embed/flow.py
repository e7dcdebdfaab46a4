"""One scene to its embedding: encoder -> windows -> blended vectors, as a raster or as a table of tiles."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from satdifuser.data.files.names import shown
from satdifuser.diffusion.noise import Placed
from satdifuser.errors import UserError
from satdifuser.pooling import Pooling
from satdifuser.scenes.done import Done
from satdifuser.scenes.embed.answers import BankAnswers
from satdifuser.scenes.embed.scales import Counted, evenly_over, scales_of
from satdifuser.scenes.embed.source import Embeds, embeds
from satdifuser.scenes.embed.stored import ATTRIBUTE, TAG
from satdifuser.scenes.flow import announced, begun, carry
from satdifuser.scenes.out import open_output
from satdifuser.scenes.out.base import Form, Output, Target
from satdifuser.scenes.source import open_scene, reading_of
from satdifuser.scenes.windows import Windows, folded, suited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from satdifuser.scenes.scene import Found, Scene
    from satdifuser.settings.scenes import EmbedSettings
    from satdifuser.store.processes import Processes

TILES = ".parquet"


def embed(settings: EmbedSettings, found: Found, *, part: tuple[int, int] = (0, 1)) -> Done:
    """Embed a scene, or one part of it; what an earlier command has left half done is gone on with.

    Of processes that torchrun has started, each does its share.
    """
    from satdifuser.engine.progress import say

    processes, part = begun(settings, part)
    source = embeds(settings)
    tiles = Path(settings.out).suffix.lower() == TILES
    answers = _answers(source, settings, tiles)
    reading = reading_of(source.data, settings.reading, answers.needed)
    prepare: Any = getattr(source.encoder, "prepare", None)
    if prepare is not None and prepare.sensor.names != reading.sensor.names:
        raise UserError(
            f"reading.sensor is {reading.sensor.name}, and the encoder was built for {prepare.sensor.name}: set"
            " data.sensor instead"
        )
    windows = windows_of(answers, settings, tiles)
    with closing(open_scene(found, reading)) as scene:
        dtype = _dtype(settings)
        wanted = dtype == "int8" and not settings.dry_run
        scales = processes.told(sampled_scales(scene, answers, windows) if processes.main else ()) if wanted else ()
        target = _target(scene, source, answers, windows, Form("embedding", dtype, answers.names, scales=scales))
        if settings.dry_run:
            if part[0] == 0:
                say(announced(scene, windows, target, answers.channels, settings.out))
            return Done((), 0, 0, 0.0, False)
        output: Output = open_output(settings.out, target)
        counted = Counted(output, target.form.scales) if target.form.scales else None
        processes.wait()
        done = carry(scene, answers, windows, counted or output, target, settings, part)
        processes.wait()
        if counted is not None:
            _tell(counted, processes)
        if settings.preview and done.finished:
            _draw(scene, done.paths, settings)
    return done


def _tell(counted: Counted, processes: Processes) -> None:
    """Which share is clipped, of all processes."""
    from satdifuser.engine.progress import say

    clipped, count = (sum(processes.gathered([n])) for n in (counted.clipped, counted.count))
    if count and processes.main:
        share = f"{clipped / count:.2g}" if clipped else "none"
        say(f"{share} of the int8 numbers lie beyond what their scale reaches{', and are clipped' * bool(clipped)}")


def _answers(source: Embeds, settings: EmbedSettings, tiles: bool) -> BankAnswers:
    if not tiles and settings.pool is not None:
        raise UserError(f"pool={settings.pool} is of tiles: give out=tiles{TILES}, or leave it out")
    if tiles and settings.stride is not None:
        raise UserError(f"stride={settings.stride} is of rasters, and {settings.out} has a row for each tile")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pooling = Pooling(settings.pool or "mean") if tiles else None
    made = BankAnswers(source.encoder, source.spec, device, size=source.size, stride=settings.stride, pooling=pooling)
    if not tiles and made.step == made.size and len(source.spec.strides) > 1:
        raise UserError(
            f"a pixel of the coarsest tap is a whole window of {made.size} px: leave that tap out (select.taps), or set"
            " stride"
        )
    return made


def windows_of(answers: BankAnswers, settings: EmbedSettings, tiles: bool) -> Windows:
    """Windows for these answers: tiles lie side by side, others overlap by whole pixels of the output."""
    given = settings.window
    if not tiles:
        grain = max(answers.coarsest, answers.step)
        return suited(answers.size, answers.step, grain, margin=given.margin, overlap=given.overlap)
    if given.margin or given.overlap:
        raise UserError("window.margin and window.overlap are of rasters: tiles lie side by side")
    return Windows(answers.size, step=answers.step, single=True)


def _target(scene: Scene, source: Embeds, answers: BankAnswers, windows: Windows, form: Form) -> Target:
    from satdifuser import __version__

    spec = source.stored.to_dict()
    identity = {
        "scene": scene.identity,
        "features": spec,
        "window": windows.to_dict(),
        "pool": None if answers.pooling is None else answers.pooling.name,
        "dtype": form.dtype,
    }
    tags = {
        "SATDIFUSER_VERSION": __version__,
        "SATDIFUSER_ENCODER": source.spec.encoder,
        "SATDIFUSER_WEIGHTS": source.stored.weights,
        "SATDIFUSER_WINDOW": json.dumps(identity["window"]),
        "SATDIFUSER_SCENE": scene.name,
    }
    attributes: dict[str, Any] = {"satdifuser_embedding": 1, "encoder": source.spec.encoder}
    if answers.exact:  # what was averaged or repeated is no bank that a head was trained on
        tags[TAG] = json.dumps(spec)
        attributes[ATTRIBUTE] = spec
    return Target(windows.place(scene.place), form, tags, identity, attributes)


def _dtype(settings: EmbedSettings) -> str:
    from satdifuser.engine.progress import say

    suffix = Path(settings.out).suffix.lower()
    if settings.dtype == "float16" and suffix in (".tif", ".tiff"):
        say(f"{shown(settings.out)}: GeoTIFF has no float16, so it is float32 (dtype=int8 is a quarter of that)")
        return "float32"
    if settings.dtype == "int8" and suffix == TILES:
        raise UserError("dtype=int8 is of rasters: tiles are float32 or float16")
    return settings.dtype


def sampled_scales(scene: Scene, answers: BankAnswers, windows: Windows) -> tuple[float, ...]:
    """int8 scales from windows that are spread evenly over the scene: all of them, where there are few."""
    size, grid = answers.size, windows.place(scene.place)
    rows, columns = windows.over(0, grid.height), windows.over(0, grid.width)
    most = np.zeros((answers.channels, 1))
    for row, column in evenly_over(len(rows), len(columns)):
        top, left = windows.start(rows[row]), windows.start(columns[column])
        lines = folded(top, top + size, scene.place.height)
        across = folded(left, left + size, scene.place.width)
        found = scene.read(slice(lines.min(), lines.max() + 1), slice(across.min(), across.max() + 1))
        if found.blank.all():
            continue
        image = found.image[:, lines - lines.min()][:, :, across - across.min()]
        values = answers(torch.from_numpy(image)[None], [Placed(scene.name, top, left, size)])[0].cpu().numpy()
        most = np.maximum(most, np.abs(values).reshape(answers.channels, -1).max(1, keepdims=True))
    return scales_of(most)


def _draw(scene: Scene, paths: Sequence[str], settings: EmbedSettings) -> None:
    from satdifuser.engine.progress import say
    from satdifuser.scenes.preview import write_preview

    path = Path(settings.out)
    if path.suffix.lower() == TILES:
        say(f"preview=true draws rasters: {shown(settings.out)} is a table")
        return
    write_preview(scene, paths[0], str(path.with_suffix(".png")), title=scene.name)
