"""How much memory a large scene needs: `satdifuser predict` in a process of its own, over a sparse GeoTIFF.

The scene has 13 bands and `--side` px a side; only `--blocks` of its blocks of 512 px hold data, the others are not in
the file (they read as no data, and are read, but not computed). What is printed is the process's peak memory (RSS),
everything in it: Python, torch, GDAL's cache, the model and the windows.

    python tools/bench_scene_memory.py                       # 20,000 px, encoder=small
    python tools/bench_scene_memory.py --run runs/moe --side 20000 --blocks 4
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from bench_predict import train_here
from measuring import Results
from rasterio.windows import Window

from satdifuser.data.bands import SENTINEL2

BLOCK = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="of task=segmentation on Sentinel-2 (else a short one is trained)")
    parser.add_argument("--encoder", default="small", help="of the run that is trained here")
    parser.add_argument("--fusion", default="moe", help="of the run that is trained here")
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--blocks", type=int, default=2, help="how many blocks hold data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("words", nargs="*", help="more settings of satdifuser predict")
    arguments = parser.parse_args()
    columns = {"scene": "", "what is made": "", "windows": "", "seconds": ".1f", "peak MiB": ".0f"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = arguments.run or folder / "run"
        if arguments.run is None:
            train_here(run, arguments.encoder, arguments.fusion)
        add = Results(arguments.json).table("Memory of a process that maps a large scene", columns)
        scene = sparse(folder / "scene.tif", arguments.side, arguments.blocks)
        words = ["predict", f"run={run}", f"scene={scene}", f"out={folder / 'map.tif'}", *arguments.words]
        seconds, peak, said = watched([*words, f"threads={arguments.threads}"], folder / "log", arguments.threads)
        what = " ".join(arguments.words) or "classes"
        add(f"{arguments.side} x {arguments.side} px, 13 bands", what, said, seconds, peak)


def sparse(path: Path, side: int, blocks: int) -> Path:
    profile: dict[str, Any] = {"driver": "GTiff", "count": 13, "height": side, "width": side, "dtype": "uint16"}
    how: dict[str, Any] = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "nodata": 0}
    where: dict[str, Any] = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 5e6)}
    chance = np.random.default_rng(0)
    with rasterio.open(path, "w", SPARSE_OK=True, BIGTIFF="YES", **profile, **how, **where) as file:
        file.descriptions = tuple(SENTINEL2.names)
        for _ in range(blocks):
            row, column = (int(n) * BLOCK for n in chance.integers(0, side // BLOCK, 2))
            window = Window(column, row, BLOCK, BLOCK)  # type: ignore[call-arg]
            file.write(chance.integers(200, 4000, (13, BLOCK, BLOCK), np.uint16), window=window)
    return path


def watched(words: list[str], log: Path, threads: int) -> tuple[float, float, str]:
    """Seconds, MiB at its most, and the last line of what it said."""
    began = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with log.open("w") as file:
        child = subprocess.Popen([sys.executable, "-m", "satdifuser", *words], stderr=file, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    said = log.read_text().strip().splitlines()
    if child.returncode:
        raise SystemExit("\n".join(said[-20:]) or f"it ended with {child.returncode}")
    seconds = time.monotonic() - began
    return seconds, usage.ru_maxrss / 1024, next((line.split(": ")[-1] for line in said[::-1] if "windows" in line), "")


if __name__ == "__main__":
    main()
