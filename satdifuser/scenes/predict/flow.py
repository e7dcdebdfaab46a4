"""One scene to its map: a run's model -> windows -> blended logits -> classes, probabilities or values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from satdifuser.errors import UserError
from satdifuser.scenes.answers import Answers, ModelAnswers, window_size
from satdifuser.scenes.done import Done
from satdifuser.scenes.flow import announced, begun, carry
from satdifuser.scenes.out.base import Form, Target
from satdifuser.scenes.predict.trained import Trained, load_run
from satdifuser.scenes.windows import Windows, suited

if TYPE_CHECKING:
    from satdifuser.scenes.scene import Found, Reading, Scene
    from satdifuser.settings.scenes import PredictSettings


def predict(settings: PredictSettings, found: Found, *, part: tuple[int, int] = (0, 1)) -> Done:
    """Map a scene, or one part of it; what an earlier command has left half done is gone on with.

    Of processes that torchrun has started, each does its share.
    """

    from satdifuser.engine.progress import say
    from satdifuser.scenes.embed.stored import bank_spec_of
    from satdifuser.scenes.out import open_output
    from satdifuser.scenes.out.forms import form_of
    from satdifuser.scenes.source import open_scene

    processes, part = begun(settings, part)
    stored = bank_spec_of(found)
    trained = load_run(settings.run, stored)
    form = form_of(trained.model.task, settings.output, settings.dtype, table=settings.out.lower().endswith(".parquet"))
    answers, windows, reading = _of_vectors(trained, stored, settings) if stored else _of_images(trained, settings)
    with closing(open_scene(found, reading)) as scene:
        target = target_of(scene, trained, windows, form)
        if settings.dry_run:
            if part[0] == 0:
                say(announced(scene, windows, target, answers.channels, settings.out))
            return Done((), 0, 0, 0.0, False)
        output = open_output(settings.out, target)
        processes.wait()
        done = carry(scene, answers, windows, output, target, settings, part)
        processes.wait()
        if settings.preview and done.finished:
            _draw(scene, done.paths, settings)
    return done


def _of_images(trained: Trained, settings: PredictSettings) -> tuple[Answers, Windows, Reading]:
    import torch

    from satdifuser.scenes.source import reading_of, sensor_of

    data, model, given = trained.settings.data, trained.model, settings.window
    prepare: Any = getattr(model.encoder, "prepare", None)
    answers = ModelAnswers(
        model,
        torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        size=window_size(model.encoder, given.size, data.settings.get("size")),
        stride=_stride(model.task, settings),
        precision=trained.settings.trainer.mixed_precision,
    )
    asked = settings.reading.sensor
    if prepare is not None and asked is not None and sensor_of(asked).names != prepare.sensor.names:
        raise UserError(
            f"reading.sensor is {asked}, and {settings.run} was trained on {prepare.sensor.name}: leave it out, and"
            " name the file's bands with reading.bands if they have no names"
        )
    reading = reading_of(data, settings.reading, answers.needed)
    return answers, answers.windows(given.margin, given.overlap), reading


def _of_vectors(trained: Trained, stored: Any, settings: PredictSettings) -> tuple[Answers, Windows, Reading]:
    """A head on features that `satdifuser embed` has made: their raster is the scene."""
    import torch

    from satdifuser.scenes.embed.answers import EmbeddedAnswers
    from satdifuser.scenes.embed.stored import reading_of_vectors

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    answers = EmbeddedAnswers(trained.model.to(device).eval(), stored, device)
    given = settings.window
    if given.size not in (None, answers.size):
        raise UserError(
            f"window.size is {given.size}, and the head was trained on maps of {answers.size} px: leave it out"
        )
    if not trained.model.task.dense:
        _stride(trained.model.task, settings)
        windows = Windows(answers.size, step=settings.stride or answers.size, single=True)
    else:
        _stride(trained.model.task, settings)
        windows = suited(answers.size, 1, 1, margin=given.margin, overlap=given.overlap)
    return answers, windows, reading_of_vectors(stored)


def _stride(task: Any, settings: PredictSettings) -> int | None:
    if task.dense and settings.stride is not None:
        raise UserError(
            f"stride={settings.stride} is of tasks with one answer an image: task={task.name} has one a pixel"
        )
    return settings.stride


def target_of(scene: Scene, trained: Trained, windows: Windows, form: Form) -> Target:
    """What is made, and all that decides its numbers."""
    from satdifuser import __version__

    model, task = trained.model, trained.model.task
    window = windows.to_dict()
    spec = model.fusion.spec
    tags = {
        "SATDIFUSER_VERSION": __version__,
        "SATDIFUSER_RUN": trained.fingerprint,
        "SATDIFUSER_ENCODER": spec.encoder,
        "SATDIFUSER_WEIGHTS": spec.weights,
        "SATDIFUSER_TASK": task.name,
        "SATDIFUSER_OUTPUT": form.kind,
        "SATDIFUSER_WINDOW": json.dumps(window),
        "SATDIFUSER_SCENE": scene.name,
    }
    identity = {"scene": scene.identity, "run": trained.fingerprint, "window": window, "output": form.kind}
    return Target(windows.place(scene.place), form, tags, identity)


def _draw(scene: Scene, paths: Sequence[str], settings: PredictSettings) -> None:
    from pathlib import Path

    from satdifuser.scenes.preview import write_preview

    picture = Path(settings.out).with_suffix(".png")
    write_preview(scene, paths[0], str(picture), title=f"{scene.name}, {Path(settings.run).name}")
