"""`satdifuser eval`: score a run's best checkpoint on a split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satdifuser.build import build_model, open_split
from satdifuser.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from satdifuser.data.base import LabelledDataset
    from satdifuser.engine.evaluate import Evaluation
    from satdifuser.engine.run import RunFolder
    from satdifuser.model import FeatureModel
    from satdifuser.settings.commands import EvalSettings
    from satdifuser.settings.trainer import TrainerConfig


@dataclass
class Scored:
    """The evaluation of a split, as a run's folder keeps it."""

    split: str
    evaluation: Evaluation

    @property
    def scores(self) -> dict[str, float]:
        return self.evaluation.scores

    def save(self, folder: RunFolder, name: str) -> None:
        """What every sample was taken for, and what the head did, beside the scores; under this name."""
        from satdifuser.engine.insight import save_insight

        found = self.evaluation
        if found.predictions is not None:
            found.predictions.save(folder.predictions(name))
        parts = {"usage": found.usage, "pixels": found.pixels}
        tensors = {f"{n}/{s}": value.contiguous() for n, part in parts.items() for s, value in part.items()}
        if tensors:
            save_insight(folder.insight(name), tensors)

    def to_dict(self, model: FeatureModel) -> dict[str, Any]:
        spec = model.fusion.spec
        weights = {
            str(stride): {
                "timesteps": list(spec.timesteps),
                "taps": list(model.fusion.names[stride]),
                "weights": [[round(x, 6) for x in row] for row in value.tolist()],
            }
            for stride, value in self.evaluation.weights.items()
        }
        return {self.split: self.scores, "samples": self.evaluation.samples, "weights": weights}


def score_split(
    model: FeatureModel, data: LabelledDataset, accelerator: Accelerator, trainer: TrainerConfig, split: str
) -> Scored:
    """With what the model answers for every sample, in batches of the trainer's size."""
    from satdifuser.engine.evaluate import evaluate
    from satdifuser.engine.log import check_scores

    found = evaluate(model, data, accelerator, trainer.batch_size, trainer.workers, keep=True)
    check_scores(found.scores, model.task.monitor, f"on the split {split}")
    return Scored(split, found)


def run(settings: EvalSettings) -> dict[str, Any]:
    """Rebuild the model of `run` from its own configuration and score `split`."""
    from satdifuser.engine.checkpoint import load_checkpoint
    from satdifuser.engine.known import other_data
    from satdifuser.engine.progress import say
    from satdifuser.engine.run import RunFolder, same_features
    from satdifuser.engine.trainer import make_accelerator

    folder, split = RunFolder(settings.run), settings.split
    trained = folder.settings()
    if settings.features is not None:
        trained = trained.but(features=settings.features)
    data = open_split(trained, split)
    model = build_model(trained, data)
    same_features(str(folder.path), folder.spec(), model.fusion.spec)
    different = other_data(folder, data, split)
    accelerator = make_accelerator(trained.trainer.mixed_precision)
    try:
        model.load_trained_state(load_checkpoint(folder.best)[1])
    except ValueError as error:
        raise UserError(f"{folder.best} is of another model than these settings make: {error}") from error
    model.to(accelerator.device)
    found = score_split(model, data, accelerator, trained.trainer, split)
    result = {**found.to_dict(model), "features": trained.features}
    if accelerator.is_main_process:
        name = split
        if different is not None:  # the run's own answers stay as they are
            name = f"{name}-{Path(trained.features).stem if trained.features else 'other'}"
            say(f"scored on other data than the run knows ({different}): the answers are in predictions-{name}.zarr")
        found.save(folder, name)
        path = folder.write_json(f"eval-{split}.json", result)
        scores = "  ".join(f"{name} {value:.4f}" for name, value in found.scores.items())
        say(f"{split} ({found.evaluation.samples} samples)  {scores}")
        say(f"wrote {path}")
    return result
