"""A head and decoder that the released SatDiFuser code has trained, as a run of this project.

    python tools/import_released.py best.pth run=runs/imported encoder=diffusionsat encoder.compat=released fusion=gw \\
        data=image_folder data.root=EuroSAT task=classification

CHECKPOINT is a `.pth` of the released code (nothing in it is run, its tensors alone are read). Behind it stand the
overrides with which `satdifuser train` would train the same: the encoder, the head, the decoder, the data. The weights
are scored on val and test, and the folder is a run that `satdifuser eval`, `train init=` and the report read.
It is not known which samples the checkpoint has learned from: the train split is taken for them, so that no score on
one of its samples passes for one on unseen data.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satdifuser.errors import UserError, expected, one_line

if TYPE_CHECKING:
    from satdifuser.engine.run import RunFolder
    from satdifuser.settings.commands import TrainSettings


def import_run(checkpoint: Path, settings: TrainSettings) -> dict[str, Any]:
    """Load, score on val and test, write the run's folder, and give its result."""
    from satdifuser.engine.run import RunFolder

    if settings.resume or settings.init is not None:
        raise UserError("an import neither goes on with a run nor begins with one: leave resume and init out")
    folder = RunFolder(settings.run)
    with folder.alone():
        return _import(checkpoint, settings, folder)


def _import(checkpoint: Path, settings: TrainSettings, folder: RunFolder) -> dict[str, Any]:
    from satdifuser.build import build_model, open_split
    from satdifuser.commands.eval import score_split
    from satdifuser.engine.checkpoint import TrainState, load_checkpoint, save_checkpoint
    from satdifuser.engine.known import Known, try_sample
    from satdifuser.engine.run import SEEN, SPEC
    from satdifuser.engine.trainer import make_accelerator
    from satdifuser.fusion import LocalizedWeighted
    from satdifuser.released import from_released, read_released

    folder.check(settings)
    weights = read_released(checkpoint)
    train = open_split(settings, "train")
    val, test = (open_split(settings, split, beside=train) for split in ("val", "test"))
    model = build_model(settings, train)
    state = {**model.trained_state(), **from_released(weights, model.fusion, model.decoder, str(checkpoint))}
    if isinstance(model.fusion, LocalizedWeighted) and not model.fusion.released:
        print(
            "import_released: its lw reads each stride's first tap alone: fusion.released=true does so", file=sys.stderr
        )
    accelerator = make_accelerator(settings.trainer.mixed_precision)
    model.to(accelerator.device)
    for data in (train, val, test):
        try_sample(data, model.task, model.check)

    folder.begin(settings, accelerator)
    Known.of({"train": train, "val": val, "test": test}).write(folder)
    folder.write_json(SPEC, model.fusion.spec.to_dict())
    folder.write_json(SEEN, [train.sample_id(index) for index in range(len(train))])
    model.load_trained_state(state)
    validation = score_split(model, val, accelerator, settings.trainer, "val").scores[model.task.monitor]
    known = TrainState(best=validation, task=model.task.name)
    for path in (folder.best, folder.last):
        save_checkpoint(path, known, state)

    model.load_trained_state(load_checkpoint(folder.best)[1])  # a head that counts its passes has counted val
    found = score_split(model, test, accelerator, settings.trainer, "test")
    result = {
        "run": str(folder.path),
        "task": model.task.name,
        "seed": settings.seed,
        "budget": settings.budget,
        "training_samples": None,  # nobody knows
        "steps": 0,
        "best_step": 0,
        "imported": {"file": checkpoint.name, "sha256": _digest(checkpoint)},
        "metric": model.task.monitor,
        "validation": validation,
        **found.to_dict(model),
    }
    found.save(folder, found.split)
    folder.write_json(folder.result.name, result)  # last: a run is done when it has one
    scores = "  ".join(f"{name} {value:.4f}" for name, value in result["test"].items())
    print(f"test ({found.evaluation.samples} samples)  {scores}\nwrote {folder.path}")
    return result


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a .pth of the released code")
    parser.add_argument("overrides", nargs="+", help="of satdifuser train")
    args = parser.parse_args(words)
    try:
        from satdifuser.config import compose

        import_run(args.checkpoint.expanduser(), compose("train", args.overrides))
    except Exception as error:
        if not expected(error):
            raise
        print(f"import_released: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
