"""A run as it was trained, for images that it has never seen: its model, and a word for what decides its answers."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from satdifuser.data.base import Labels
from satdifuser.engine.files import stamp
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from satdifuser.bank import BankSpec
    from satdifuser.model import FeatureModel
    from satdifuser.settings.commands import TrainSettings


@dataclass(frozen=True)
class Trained:
    """The best checkpoint of a run in its model; `fingerprint` names both, wherever the folder lies."""

    model: FeatureModel
    settings: TrainSettings
    fingerprint: str


@dataclass(frozen=True)
class _Named:
    """What a task is built for, without a sample."""

    name: str
    labels: Labels


def load_run(path: str, stored: BankSpec | None = None) -> Trained:
    """The model of a run; with `stored`, of features that lie there, whose encoder is not built.

    The last one is kept: a process that goes over many scenes builds its model once.
    """
    return _kept(path, stored, stamp(RunFolder(path).best))


@functools.lru_cache(maxsize=1)
def _kept(path: str, stored: BankSpec | None, there: tuple[int, int] | None) -> Trained:
    return read_run(path, stored)


def read_run(path: str, stored: BankSpec | None = None) -> Trained:
    """As `load_run`, built anew each time: whoever asks may change it."""
    from satdifuser.build import assemble, build_encoder, build_task
    from satdifuser.data.policy import resolved
    from satdifuser.engine.checkpoint import load_checkpoint
    from satdifuser.engine.run import same_features

    folder = RunFolder(path)
    settings = folder.settings()
    if settings.temporal is not None:
        raise UserError(f"{path} was trained on several dates ({settings.temporal.label}), and a scene is of one")
    encoder, spec = None, stored
    if stored is None:
        built: Any = build_encoder(resolved(settings.encoder, settings.data))
        if getattr(built, "metadata_source", "none") == "samples":
            raise UserError(
                f"{path} was trained with encoder.metadata=samples, and a scene has no such numbers: train it with"
                " none, or with a list of numbers"
            )
        encoder, spec = built, settings.select.of(built.spec)
        pooled = dict(folder.spec().settings).get("pooled")
        if pooled is not None and settings.pool is None:  # as the store was whose features it was trained on
            settings = settings.but(pool=str(pooled))
    data: Any = _Named(settings.data.name, labels_of(folder, settings))
    model = assemble(settings, encoder, spec, build_task(settings.task, data))
    same_features(str(folder.path), folder.spec(), model.fusion.spec)
    try:
        model.load_trained_state(load_checkpoint(folder.best)[1])
    except ValueError as error:
        raise UserError(f"{folder.best} is of another model than its run's settings make: {error}") from error
    return Trained(model.requires_grad_(False), settings, _fingerprint(folder, model))


def labels_of(folder: RunFolder, settings: TrainSettings) -> Labels:
    """Classes and their colours, as the run has kept them; an older run's data or store says them."""
    from satdifuser.build import open_split
    from satdifuser.engine.files import read_json
    from satdifuser.engine.run import ANEW, LABELS

    path = folder.path / LABELS
    if not path.is_file():
        return open_split(settings, "train").labels
    try:
        return Labels.from_dict(read_json(path, dict, ANEW))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): {ANEW}") from None


def _fingerprint(folder: RunFolder, model: FeatureModel) -> str:
    with folder.best.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    about = {"features": model.fusion.spec.to_dict(), "task": model.task.name, "labels": model.task.labels.to_dict()}
    found.update(json.dumps(about, sort_keys=True, default=str).encode())
    return found.hexdigest()
