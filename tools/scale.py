"""What embedding a country takes, from a measurement here: time, disk and money, and where the next wall is.

A scene of the built-in data (13 bands, `--side` px, all of it land and no gap) is embedded in a process of its own, in
each of the ways of `WAYS`. What is measured is how many windows a second go through the encoder once it runs, and how
many bytes a pixel of the output takes. The rest is arithmetic, which is printed too:

    windows = area / (px of a window's stride x m per px)^2        hours = windows / (windows a second) / 3600
    disk    = area / (px of an output's pixel x m per px)^2 x bytes of an output's pixel
    money   = hours x price of this machine's hour

    python tools/scale.py --area 357000 --price 0.40
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from measuring import Results, machine

from satdifuser.data.bands import SENTINEL2
from satdifuser.data.synthetic.scenes import render

WAYS = {
    "small_vit, last block, int8": ["encoder=small_vit", "select.depths=[-1]", "dtype=int8"],
    "small_vit, last block, tiles": ["encoder=small_vit", "select.depths=[-1]"],
    "small (diffusion), one map, int8": [
        "encoder=small",
        "encoder.timesteps=[21]",
        "encoder.taps=[up_blocks.1.resnets.1]",
        "dtype=int8",
    ],
    "small (diffusion), all of three noise levels, int8": ["encoder=small", "dtype=int8"],
}
GRID = 10.0  # m of a pixel
READ = 13 * 2  # bytes of a pixel of a Sentinel-2 scene, uncompressed


@dataclass(frozen=True)
class Measured:
    """`stride`: px from window to window; `step`: px that one pixel of the output is; `each`: bytes of such a pixel."""

    rate: float
    stride: int
    step: int
    each: float
    start: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area", type=float, default=357_000, help="km2 (Germany)")
    parser.add_argument("--price", type=float, default=1.0, help="of an hour of this machine, in your money")
    parser.add_argument("--side", type=int, default=768, help="of the measured scene, in px")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = Results(arguments.json, machine=machine(arguments.threads), area=arguments.area, price=arguments.price)
    columns = {"way": "s", "windows/s": ".1f", "bytes/px out": ".0f", "windows": ",.0f", "hours": ",.0f"}
    columns |= {"disk (GB)": ",.0f", "money": ",.1f", "MB/s read": ".2f"}
    add = results.table(f"{arguments.area:,.0f} km2 at {GRID:g} m, {arguments.price:g} an hour", columns)
    with tempfile.TemporaryDirectory() as name:
        scene = written(Path(name) / "scene.tif", arguments.side)
        for way, words in WAYS.items():
            found = measured(Path(name), scene, words, arguments.side, arguments.threads)
            pixels = arguments.area * 1e6 / GRID**2
            windows = pixels / found.stride**2
            hours = windows / found.rate / 3600
            disk = pixels / found.step**2 * found.each / 1e9
            add(
                way,
                found.rate,
                found.each,
                windows,
                hours,
                disk,
                hours * arguments.price,
                found.rate * found.stride**2 * READ / 1e6,
            )


def written(path: Path, side: int) -> Path:
    image = render(0, 0, side, nodata=0.0, cloud=0.0).image
    profile = {"driver": "GTiff", "count": 13, "height": side, "width": side, "dtype": "uint16", "nodata": 0}
    where = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 5e6)}
    with rasterio.open(path, "w", tiled=True, **profile, **where) as file:
        file.descriptions = tuple(SENTINEL2.names)
        file.write(np.ascontiguousarray(image).astype(np.uint16))
    return path


def measured(folder: Path, scene: Path, words: list[str], side: int, threads: int) -> Measured:
    """The rate is that of the command's own line, which leaves the start of Python and of the encoder out."""
    out = folder / ("out.parquet" if "dtype=int8" not in words else "out.tif")
    command = [sys.executable, "-m", "satdifuser", "embed", f"scene={scene}", f"out={out}", f"threads={threads}"]
    command += [*words, "overwrite=true"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    plan = _said([*command, "dry_run=true"], environment)
    began = time.monotonic()
    done = _said(command, environment)
    whole = time.monotonic() - began
    size, margin, overlap = map(int, _numbers(r"windows of (\d+) px \(margin (\d+), overlap (\d+)\)", plan))
    across, down = map(int, _numbers(r"-> \S+: (\d+) x (\d+) px", plan))
    (count,) = map(int, _numbers(r"(\d+) of \d+ windows computed", done))
    (rate,) = map(float, _numbers(r"([\d.]+) a second", done))
    bytes_ = sum(file.stat().st_size for file in ([out] if out.is_file() else out.rglob("*")))
    step = round(side / across)
    stride = step if out.suffix == ".parquet" else size - 2 * margin - overlap
    return Measured(rate, stride, step, bytes_ / (across * down), whole - count / rate)


def _said(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stderr


def _numbers(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"no {pattern} in: {text}")
    return found.groups()


if __name__ == "__main__":
    main()
