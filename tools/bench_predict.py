"""What `satdifuser predict` costs: how much of its time is the encoder's, and a plain loop over tiles beside it.

Both read the same GeoTIFF of 13 bands and write a map of classes. The plain loop is what one writes by hand: tiles that
do not overlap, read with rasterio in batches, argmax, written into a tiled GeoTIFF. Ours answers more windows (they
overlap), so the ratio is given for the whole and for one window. Sides alternate, and the best of `--repeats` counts.

    python tools/bench_predict.py                  # trains encoder=small fusion=moe for some steps first
    python tools/bench_predict.py --fusion mean    # a light head: what is left is the encoder's
    python tools/bench_predict.py --run runs/moe --side 1024

    python tools/bench_predict.py --embed encoder=small_vit 'select.depths=[-1]'   # satdifuser embed, which has no head

`--plain-windows` lays our windows side by side, without margin or overlap: then both compute the same windows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from measuring import Results, clock, machine
from rasterio.windows import Window

from satdifuser.commands.train import run as train
from satdifuser.config import compose
from satdifuser.engine.memory import keep_memory
from satdifuser.scenes.answers import window_size
from satdifuser.scenes.predict import flow
from satdifuser.scenes.predict.trained import load_run
from satdifuser.scenes.scene import Found

SHORT = ["trainer=quick", "trainer.min_steps=8", "trainer.max_steps=8"]
LENGTHS = ["data.splits.train.length=32", "data.splits.val.length=8", "data.splits.test.length=8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="of task=segmentation on Sentinel-2 (else a short one is trained)")
    parser.add_argument("--encoder", default="small", help="of the run that is trained here")
    parser.add_argument("--fusion", default="moe", help="of the run that is trained here")
    parser.add_argument("--side", type=int, default=768, help="of the scene, in px")
    parser.add_argument("--batch", type=int, default=8, help="windows at once, of both")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--plain-windows", action="store_true")
    parser.add_argument("--embed", nargs="*", metavar="WORD", help="time satdifuser embed, with these words, instead")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    keep_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = arguments.run or folder / "run"
        if arguments.embed is not None:
            embedded(Results(arguments.json, side=arguments.side), folder, arguments)
            return
        if arguments.run is None:
            train_here(run, arguments.encoder, arguments.fusion)
        scene = made(folder / "scene.tif", arguments.side)
        compare(Results(arguments.json, side=arguments.side), run, scene, folder, arguments)


def train_here(run: Path, encoder: str, fusion: str) -> None:
    """A short run of task=segmentation, whose scores count for nothing."""
    words = [f"encoder={encoder}", f"fusion={fusion}", "task=segmentation", *SHORT, *LENGTHS, f"run={run}"]
    train(compose("train", words), quiet=True, draw=False)


def compare(results: Results, run: Path, scene: Path, folder: Path, arguments: Any) -> None:
    given = ["window.margin=0", "window.overlap=0"] if arguments.plain_windows else []
    words = [f"run={run}", f"scene={scene}", f"window.batch_size={arguments.batch}", "overwrite=true", *given]
    settings = compose("predict", [*words, f"out={folder / 'ours.tif'}"])
    trained = load_run(str(run))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = trained.model.to(device).eval()
    size = window_size(model.encoder, None, trained.settings.data.settings.get("size"))
    best: dict[str, tuple[float, int, float, float]] = {}
    with loaded(trained):
        for _ in range(arguments.repeats):
            for side, work in {
                "ours": lambda: flow.predict(settings, Found("scene", str(scene))).computed,
                "plain loop": lambda: plain(model, scene, folder / "plain.tif", size, arguments.batch, device),
            }.items():
                found = watched(model.encoder, model, device, work)
                best[side] = min(best.get(side, found), found)
    columns = {"": "", "seconds": ".2f", "windows": "d", "windows a second": ".1f", "encoder": ".1%", "model": ".1%"}
    columns |= {"ratio": ".2f", "ratio a window": ".2f"}
    add = results.table(f"{arguments.side} x {arguments.side} px, windows of {size} px, {machine()}", columns)
    ours, theirs = best["ours"], best["plain loop"]
    for side, (seconds, windows, encoder, whole) in best.items():
        rate = theirs[1] / theirs[0] / (windows / seconds)
        add(side, seconds, windows, windows / seconds, encoder / seconds, whole / seconds, seconds / theirs[0], rate)
    add("ours / plain loop", ours[0] / theirs[0], None, None, None, None, None, None)


def embedded(results: Results, folder: Path, arguments: Any) -> None:
    """No head and no plain loop: what of the time is the encoder's."""
    from satdifuser.scenes.embed.flow import embed
    from satdifuser.scenes.embed.source import embeds

    scene = made(folder / "scene.tif", arguments.side)
    words = [f"scene={scene}", f"window.batch_size={arguments.batch}", "overwrite=true", *arguments.embed]
    settings = compose("embed", [*words, f"out={folder / 'ours.zarr'}"])
    encoder, device = embeds(settings).encoder, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = [
        watched(encoder, encoder, device, lambda: embed(settings, Found("scene", str(scene))).computed)
        for _ in range(arguments.repeats)
    ]
    seconds, windows, spent, _ = min(found)
    columns = {"": "", "seconds": ".2f", "windows": "d", "windows a second": ".1f", "encoder": ".1%"}
    add = results.table(f"{arguments.side} x {arguments.side} px, {machine()}", columns)
    add(" ".join(arguments.embed) or "encoder=small", seconds, windows, windows / seconds, spent / seconds)


@contextmanager
def loaded(trained: Any) -> Iterator[None]:
    """The run is in memory already, for both sides: what is compared is the scene's work."""
    before = flow.load_run
    flow.load_run = lambda *_: trained  # type: ignore[assignment]
    try:
        yield
    finally:
        flow.load_run = before


def watched(encoder: Any, model: Any, device: torch.device, work: Callable[[], int]) -> tuple[float, int, float, float]:
    """Seconds, windows, and how many of the seconds are the encoder's and the whole model's."""
    spent, hooks = dict.fromkeys(("encoder", "model"), 0.0), []
    for name, module in (("encoder", encoder), ("model", model)):
        starts: list[float] = []
        hooks.append(module.register_forward_pre_hook(lambda *_, s=starts: s.append(clock(device))))

        def ended(*_: Any, name: str = name, starts: list[float] = starts) -> None:
            spent[name] += clock(device) - starts.pop()

        hooks.append(module.register_forward_hook(ended))
    began = time.perf_counter()
    windows = work()
    seconds = time.perf_counter() - began
    for hook in hooks:
        hook.remove()
    return seconds, windows, spent["encoder"], spent["model"]


def plain(model: Any, scene: Path, out: Path, size: int, batch: int, device: torch.device) -> int:
    """Tiles side by side; those at the edge are filled with zeros."""
    with rasterio.open(scene) as file:
        corners = [(y, x) for y in range(0, file.height, size) for x in range(0, file.width, size)]
        profile: dict[str, Any] = {**file.profile, "count": 1, "dtype": "uint8", "nodata": 255, "compress": "deflate"}
        with rasterio.open(out, "w", **profile) as target, torch.inference_mode():
            for first in range(0, len(corners), batch):
                some = corners[first : first + batch]
                tiles = [
                    file.read(window=Window(x, y, size, size), boundless=True, fill_value=0)  # type: ignore[call-arg]
                    for y, x in some
                ]
                images = torch.from_numpy(np.stack(tiles).astype(np.float32) / 10000).to(device)
                logits = model({"image": images, "id": [f"{y} {x}" for y, x in some]}, size=(size, size)).logits
                for (y, x), classes in zip(some, logits.argmax(1).to(torch.uint8).cpu().numpy(), strict=True):
                    high, wide = min(size, file.height - y), min(size, file.width - x)
                    target.write(classes[:high, :wide], 1, window=Window(x, y, wide, high))  # type: ignore[call-arg]
    return len(corners)


def made(path: Path, side: int) -> Path:
    """Sentinel-2 numbers of no place."""
    from satdifuser.data.bands import SENTINEL2

    profile: dict[str, Any] = {"driver": "GTiff", "count": 13, "height": side, "width": side, "dtype": "uint16"}
    how: dict[str, Any] = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "nodata": 0}
    where: dict[str, Any] = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 5e6)}
    chance = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile, **how, **where) as file:
        file.write(chance.integers(200, 4000, (13, side, side), np.uint16))
        file.descriptions = tuple(SENTINEL2.names)
    return path


if __name__ == "__main__":
    main()
