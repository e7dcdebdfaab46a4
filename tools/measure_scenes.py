"""How hard the built-in scenes are: linear classifiers on single pixels, and a trained network. Prints a table.

    python tools/measure_scenes.py

The numbers in docs/synthetic.md come from this command. A per-pixel classifier on RGB must be far from solving the
task, one on all bands clearly better, and a network that sees context clearly better again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from satdifuser.commands import train
from satdifuser.config import compose
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.synthetic import SyntheticScenes
from satdifuser.data.synthetic.scenes import SCALE
from satdifuser.data.synthetic.spectra import CLASSES, IGNORE
from satdifuser.report.tables import markdown

RGB = ("B04", "B03", "B02")
BANDS = {"RGB": RGB, "all 13 bands": SENTINEL2.names}


def pixels(split: str, length: int, each: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Reflectances and classes of valid pixels, `each` of every scene (all if None)."""
    scenes, draw = SyntheticScenes(split, length), np.random.default_rng(0)
    values, classes = [], []
    for index in range(length):
        sample = scenes[index]
        mask = sample["mask"].numpy()
        where = np.flatnonzero(mask != IGNORE)
        if each is not None and len(where) > each:
            where = draw.choice(where, each, replace=False)
        values.append(sample["image"].numpy().reshape(len(SENTINEL2), -1)[:, where].T * SCALE)
        classes.append(mask.ravel()[where])
    return np.concatenate(values), np.concatenate(classes)


def miou(truth: np.ndarray, found: np.ndarray) -> float:
    table = np.zeros((len(CLASSES), len(CLASSES)))
    np.add.at(table, (truth, found), 1)
    hit = table.diagonal()
    return float((hit / (table.sum(0) + table.sum(1) - hit)).mean())


def linear(args: argparse.Namespace) -> dict[str, float]:
    x, y = pixels("train", args.train, 200)
    test_x, test_y = pixels("test", args.test, None)
    scores = {}
    for name, bands in BANDS.items():
        index = list(SENTINEL2.index(bands))
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=400)).fit(x[:, index], y)
        scores[name] = miou(test_y, model.predict(test_x[:, index]))
    return scores


def network(args: argparse.Namespace, bands: tuple[str, ...], folder: Path) -> float:
    lengths = [
        f"data.splits.train.length={args.train}",
        "data.splits.val.length=64",
        f"data.splits.test.length={args.test}",
    ]
    overrides = [
        "encoder=unet",
        "encoder.width=16",
        "fusion=mean",
        "fusion.projection_dim=32",
        "decoder=linear",
        "trainer=quick",
        *lengths,
    ]
    overrides += [f"encoder.prepare.bands=[{','.join(bands)}]", "encoder.prepare.high=0.5"]
    overrides += [f"trainer.epochs={args.epochs}", "trainer.batch_size=16", "trainer.eval_every=100", f"run={folder}"]
    return float(train.run(compose("train", overrides))["test"]["miou"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=512, help="training scenes")
    parser.add_argument("--test", type=int, default=192, help="test scenes")
    parser.add_argument("--epochs", type=int, default=12, help="of the network")
    args = parser.parse_args()
    pixelwise = linear(args)
    with tempfile.TemporaryDirectory() as folder:
        trained = {name: network(args, bands, Path(folder) / str(len(bands))) for name, bands in BANDS.items()}
    rows = [[name, f"{pixelwise[name]:.3f}", f"{trained[name]:.3f}"] for name in BANDS]
    print(markdown(["input", "per-pixel linear classifier (mIoU)", "U-Net (mIoU)"], rows))


if __name__ == "__main__":
    main()
