"""Maps of a scene that a task names, by each of its models: predicted once, kept in the comparison's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satdifuser.compare.grid import digest, file_digest
from satdifuser.compare.plan import Planned
from satdifuser.compare.rows import goes_by
from satdifuser.compare.worker import result
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError, one_line

if TYPE_CHECKING:
    from satdifuser.report.content import Content, SceneMaps
    from satdifuser.scenes.scene import Found, Reading, Scene
    from satdifuser.settings.commands import CompareSettings

SIDE = 360  # px of a picture at most


def scene_of(config: CompareSettings, task: str) -> str | None:
    """What a task, in whatever variant, names as its scene."""
    for name, values in (config.tasks or {}).items():
        if goes_by(task, name) and isinstance(values, Mapping) and values.get("scene") is not None:
            return str(values["scene"])
    return None


def check(config: CompareSettings) -> None:
    """Refuse a scene that is not there before any run is done."""
    for task in config.tasks or {}:
        words = scene_of(config, task)
        if words is not None:
            _found(words, task)


def _found(words: str, task: str) -> Found:
    from satdifuser.scenes.find import find_scenes

    try:
        found = find_scenes(words)
    except UserError as error:
        raise UserError(f"tasks.{task}.scene: {error}") from None
    if len(found) != 1:
        raise UserError(f"tasks.{task}.scene: {words} has {len(found)} scenes: name one")
    return found[0]


def maps_of(config: CompareSettings, planned: Sequence[Planned], output: Path) -> dict[str, SceneMaps]:
    """For each task that names a scene: its picture, and the map of each model that has a finished run."""
    from satdifuser.engine.progress import say

    maps: dict[str, SceneMaps] = {}
    for task in dict.fromkeys(run.cell.task for run in planned):
        words, runs = scene_of(config, task), _runs(planned, task)
        if words is None or not runs:
            continue
        try:
            maps[task] = _maps(_found(words, task), runs, output / "scenes")
        except Exception as error:  # the report is none the worse for a scene that cannot be read
            say(f"no maps of {words} for {task}: {one_line(error)}")
    return maps


def with_maps(content: Content, maps: Mapping[str, SceneMaps]) -> Content:
    """The report's content with them."""
    return replace(content, sections=[replace(one, scene=maps.get(one.name)) for one in content.sections])


def _runs(planned: Sequence[Planned], task: str) -> dict[str, Planned]:
    """Of each model the finished run with most labels, and of those the one of the first seed."""
    done = [
        run for run in planned if run.cell.task == task and run.folder is not None and result(run.folder) is not None
    ]
    return {
        model: min((run for run in done if run.cell.model == model), key=lambda run: (-run.cell.budget, run.cell.seed))
        for model in dict.fromkeys(run.cell.model for run in done)
    }


def _maps(found: Found, runs: Mapping[str, Planned], folder: Path) -> SceneMaps:
    from satdifuser.engine.progress import say
    from satdifuser.report.content import SceneMaps
    from satdifuser.scenes.looks import look, painted, scene_picture, span
    from satdifuser.scenes.source import open_scene

    first = next(iter(runs.values()))
    with closing(open_scene(found, _reading(first))) as scene:
        picture, told = scene_picture(scene, SIDE)
        files: dict[str, Path] = {}
        errors: dict[str, str] = {}
        for model, run in runs.items():
            try:
                files[model] = _predicted(found, scene, run, folder)
            except Exception as error:  # of whatever kind, it is this model's and no other's
                errors[model] = one_line(error)
                say(f"{model} gives no map of {found.name}: {errors[model]}")
        looked = {model: look(path, SIDE) for model, path in files.items()}
        # values of all models are on one scale of colours
        ends = [span(one.numbers[0]) for one in looked.values() if one.kind == "values"]
        pictures = {
            model: _shaded(one, ends) if one.kind == "values" else painted(one) for model, one in looked.items()
        }
        sizes = {model: _on(pictures[model], one, scene, picture.shape[:2]) for model, one in looked.items()}
    return SceneMaps(found.name, picture, told, sizes, errors, _legend(looked), _span(ends))


def _predicted(found: Found, scene: Scene, run: Planned, folder: Path) -> Path:
    """The map of a run, named by what both are; it is not made twice."""
    from satdifuser.scenes.predict.flow import predict
    from satdifuser.settings.scenes import PredictSettings

    assert run.folder is not None
    best = file_digest(str(RunFolder(run.folder).best))
    path = folder / f"{digest({'run': best, 'scene': scene.identity})}.tif"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        predict(PredictSettings(run=str(run.folder), scene=found.words, out=str(path)), found)
    return path


def _reading(run: Planned) -> Reading:
    """As the task's images were; of its bands those of true colour, if there are."""
    from satdifuser.scenes.looks import LIGHT
    from satdifuser.scenes.source import reading_of
    from satdifuser.settings.scenes import ReadingSettings

    data = run.cell.config.data
    whole = reading_of(data, ReadingSettings(), None)
    light = [band.name for band in whole.sensor.bands if band.common in LIGHT]
    return reading_of(data, ReadingSettings(), light) if len(light) == len(LIGHT) else whole


def _shaded(looked: Any, ends: Sequence[tuple[float, float]]) -> Any:
    from satdifuser.scenes.looks import shaded

    return shaded(looked.numbers[0], *(_span(ends) or (0.0, 1.0)))


def _span(ends: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


def _on(painted: Any, looked: Any, scene: Scene, shape: tuple[int, int]) -> Any:
    """A map's picture on the pixels of the scene's: tiles are larger than they, and reach beyond its end."""
    import numpy as np

    if painted.shape[:2] == shape or looked.grid is None:
        return painted
    transform, *size = looked.grid
    whole = (scene.place.height, scene.place.width)

    def area(six: Sequence[float]) -> float:
        return abs(six[0] * six[4] - six[1] * six[3])

    times = (area(transform) / area(scene.place.transform)) ** 0.5
    places = [
        np.minimum((np.arange(n) + 0.5) / n * most / (times * full) * there, there - 1).astype(int)
        for n, most, full, there in zip(shape, whole, size, painted.shape[:2], strict=True)
    ]
    return painted[np.ix_(*places)]


def _legend(looked: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Colour and name of the classes that occur in any map, and of what has none."""
    import numpy as np

    from satdifuser.scenes.looks import BLANK

    entries: dict[int, tuple[str, str]] = {}
    for one in looked.values():
        if one.kind in ("classes", "probabilities", "logits"):
            entries |= {n: (one.colours[n], one.names[n]) for n in np.unique(one.classes[one.there]).tolist()}
    gone = any(not one.there.all() for one in looked.values())
    blank = [("#{:02x}{:02x}{:02x}".format(*BLANK), "no data")] if gone else []
    return (*(entries[number] for number in sorted(entries)), *blank)
