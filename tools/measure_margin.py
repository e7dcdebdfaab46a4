"""How far into a window the edge is felt: predictions at each distance from it, beside those of a window's middle.

For each run: windows at every multiple of the coarsest stride over larger images of the run's own kind, so that each
pixel is answered at many distances from an edge. The truth is the answer of the window in which it lies deepest. For
each distance it prints the mean change of probabilities (half the sum over classes), and the share of pixels that get
another class. The margin of `satdifuser predict` (window.margin) is what of a window is not used.

    python tools/measure_margin.py runs/moe runs/vit runs/unet
    python tools/measure_margin.py --train      # trains small + moe, small_vit and unet first
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Results

from satdifuser.commands.train import run as train
from satdifuser.config import compose
from satdifuser.diffusion.noise import Placed
from satdifuser.scenes.answers import ModelAnswers, window_size
from satdifuser.scenes.predict.trained import load_run
from satdifuser.scenes.windows import EIGHTH

MODELS = {
    "small + moe": ["encoder=small", "fusion=moe"],
    "small_vit": ["encoder=small_vit"],
    "unet": ["encoder=unet", "fusion=mean"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="runs of task=segmentation on built-in data")
    parser.add_argument("--train", action="store_true", help="train the three models here first")
    parser.add_argument("--steps", type=int, default=300, help="of their training")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    results = Results(arguments.json, images=arguments.images)
    with tempfile.TemporaryDirectory() as folder:
        runs = {path.name: path for path in arguments.runs}
        for name, words in MODELS.items() if arguments.train else ():
            runs[name] = Path(folder) / name.replace(" ", "")
            steps = [f"trainer.min_steps={arguments.steps}", f"trainer.max_steps={arguments.steps}"]
            lengths = ["data.splits.train.length=512", "data.splits.val.length=32", "data.splits.test.length=32"]
            words = [*words, "task=segmentation", "trainer=quick", *steps, *lengths, f"run={runs[name]}"]
            train(compose("train", words), quiet=True, draw=False)
        for name, path in runs.items():
            measure(results, name, path, arguments.images)


def measure(results: Results, name: str, path: Path, count: int) -> None:
    trained = load_run(str(path))
    data = trained.settings.data
    size = window_size(trained.model.encoder, None, data.settings.get("size"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    answers = ModelAnswers(trained.model, device, size=size)
    images = data.but(size=3 * size).split("test")
    columns = {"px from the edge": "", "change of probability": ".4f", "other class": ".2%", "pixels": "d"}
    add = results.table(f"{name}: windows of {size} px, moved by {moved(answers)} px", columns)
    sums = np.zeros((size // 2, 3))
    for number in range(min(count, len(images))):
        sums += by_distance(answers, images[number]["image"], number)
    bounds = sorted({0, 1, 2, 4, 6, 8, 12, 16, 20, 24, 28, *range(32, size // 2, 8), size // 2})
    for low, high in zip(bounds, [b for b in bounds if b <= size // 2][1:], strict=False):
        change, other, pixels = sums[low:high].sum(0)
        if pixels:
            add(f"{low} to {high - 1}", change / pixels, other / pixels, int(pixels))


def moved(answers: ModelAnswers) -> int:
    """By how many px from a window to the next: the coarsest stride, unless that is nearly the whole window."""
    return min(answers.grain, answers.size // EIGHTH)


def by_distance(answers: ModelAnswers, image: torch.Tensor, number: int) -> np.ndarray[Any, Any]:
    """Of one image the sums of changes, of changed classes, and of comparisons, for each distance from the edge."""
    size, side, grain = answers.size, image.shape[-1], moved(answers)
    starts = [(y, x) for y in range(0, side - size + 1, grain) for x in range(0, side - size + 1, grain)]
    found = []
    for first in range(0, len(starts), 32):
        some = starts[first : first + 32]
        windows = torch.stack([image[:, y : y + size, x : x + size] for y, x in some])
        ids = [Placed(f"image {number}", y, x, size) for y, x in some]
        found.append(answers(windows, ids).softmax(1).cpu().numpy())
    answered = np.concatenate(found)
    line = np.minimum(np.arange(size), size - 1 - np.arange(size))
    depth = np.minimum(line[:, None], line[None])
    deepest = np.full((side, side), -1)
    truth = np.zeros((answered.shape[1], side, side), np.float32)
    for (y, x), values in zip(starts, answered, strict=True):
        better = depth > deepest[y : y + size, x : x + size]
        deepest[y : y + size, x : x + size][better] = depth[better]
        truth[:, y : y + size, x : x + size][:, better] = values[:, better]
    sums = np.zeros((size // 2, 3))
    for (y, x), values in zip(starts, answered, strict=True):
        other = truth[:, y : y + size, x : x + size]
        deep = deepest[y : y + size, x : x + size]
        counted = (deep >= size // 2 - grain) & (depth < deep)  # where there is a window to whose middle it belongs
        change, classes = np.abs(values - other).sum(0) / 2, values.argmax(0) != other.argmax(0)
        for place, part in enumerate((change, classes, np.ones_like(change))):
            sums[:, place] += np.bincount(depth[counted], part[counted], size // 2)
    return sums


if __name__ == "__main__":
    main()
