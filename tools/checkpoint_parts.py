"""Carry a pretraining run to another machine: its checkpoint, log and settings in files of at most 16 MB.

The light form (the default) takes 10 bytes a parameter and not 16: weights stay float32, their average is kept as its
difference from them and the optimiser's moments as they are, both in bfloat16. A run goes on from it as from a
checkpoint that was rounded by a part in 256 in its moments; `--exact` keeps every bit.

    python tools/checkpoint_parts.py split runs/mine parts     # parts/checkpoint-00.part, ..., checkpoint.json
    python tools/checkpoint_parts.py join parts runs/mine      # and satdifuser pretrain ... run=runs/mine resume=true
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measuring import write_json
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from satdifuser.engine.checkpoint import MODEL, OPTIMIZER, sealed
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.pretrain.trainer import EMA, NET

PART_BYTES = 16_000_000
INDEX = "checkpoint.json"
LAST = "checkpoints/last.safetensors"
BESIDE = ("config.yaml", "metrics.jsonl", "vae/model")  # what a resume needs besides; the last if the run has a VAE
DIFFERENCE = "difference/"  # what an average's name begins with where it is kept as a difference


def split(run: Path, out: Path, exact: bool = False, part_bytes: int = PART_BYTES) -> dict[str, Any]:
    """Write a run's last checkpoint into `out`, in place of what was there; gives the index."""
    folder = RunFolder(run)
    if not folder.last.is_file():
        raise UserError(f"no checkpoint at {folder.last}: pretrain first, or give the folder of a run that has one")
    with tempfile.TemporaryDirectory() as aside:
        last = folder.last if exact else lighten(folder.last, Path(aside) / "light.safetensors")
        archive = Path(aside) / "run.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(last, LAST)
            for name in BESIDE:
                if (run / name).exists():
                    tar.add(run / name, name)
        new = Path(aside) / "parts"
        new.mkdir()
        parts = list(_cut(archive, new, part_bytes))
        index = {"step": state_of(folder.last)["step"], "form": "exact" if exact else "light", "parts": parts}
        out.mkdir(parents=True, exist_ok=True)
        for old in (out / INDEX, *out.glob("checkpoint-*.part")):  # first the index: without it there is nothing
            old.unlink(missing_ok=True)
        for part in parts:
            shutil.move(new / part["name"], out / part["name"])
    write_json(out / INDEX, index)
    return index


def join(parts: Path, run: Path) -> int:
    """Put the run together again, unless its folder has got further by itself; gives its step."""
    if not (parts / INDEX).is_file():
        raise UserError(f"no {INDEX} in {parts}: give the folder that checkpoint_parts.py split wrote")
    index = json.loads((parts / INDEX).read_text())
    content = b"".join(_checked(parts, part) for part in index["parts"])
    folder, step = RunFolder(run), int(index["step"])
    if folder.last.is_file() and (there := state_of(folder.last)["step"]) >= step:
        return int(there)
    with tempfile.TemporaryDirectory(dir=_made(run.parent)) as aside:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(aside, filter="data")
        last = Path(aside) / LAST
        whole = last if index["form"] == "exact" else fill_out(last, last.with_name("whole.safetensors"))
        for name in BESIDE:
            if (Path(aside) / name).exists():
                target = _made((run / name).parent) / Path(name).name
                if target.is_dir():
                    shutil.rmtree(target)
                (Path(aside) / name).replace(target)
        _made(folder.last.parent)
        whole.replace(folder.last)  # last: without it there is no run to go on with
    return step


def lighten(path: Path, out: Path) -> Path:
    """Rewrite a checkpoint in its light form."""
    tensors, metadata = _read(path)
    light: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.startswith(MODEL + EMA):
            weights = tensors[MODEL + NET + name.removeprefix(MODEL + EMA)]
            light[DIFFERENCE + name] = (value - weights).bfloat16()
        elif name.startswith(OPTIMIZER) and value.ndim:
            light[name] = value.bfloat16()
        else:
            light[name] = value
    save_file(light, out, metadata=metadata)
    return out


def fill_out(path: Path, out: Path) -> Path:
    """Rewrite a light checkpoint as one of float32."""
    tensors, metadata = _read(path)
    whole: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.startswith(DIFFERENCE):
            own = name.removeprefix(DIFFERENCE)
            whole[own] = tensors[MODEL + NET + own.removeprefix(MODEL + EMA)] + value.float()
        else:
            whole[name] = value.float() if value.dtype == torch.bfloat16 else value
    save_file(whole, out, metadata=sealed(json.loads(metadata["state"]), whole))
    return out


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 (not a mapping)


def state_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        state: dict[str, Any] = json.loads(file.metadata()["state"])
    return state


def _cut(archive: Path, folder: Path, part_bytes: int) -> Iterator[dict[str, Any]]:
    with archive.open("rb") as file:
        for number, content in enumerate(iter(lambda: file.read(part_bytes), b"")):
            name = f"checkpoint-{number:02d}.part"
            (folder / name).write_bytes(content)
            yield {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _checked(parts: Path, part: dict[str, Any]) -> bytes:
    path = parts / part["name"]
    if not path.is_file():
        raise UserError(f"{path} is missing: bring all parts that {INDEX} lists")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != part["sha256"]:
        raise UserError(f"{path} is not the part that {INDEX} lists (checksum): bring it again")
    return content


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["split", "join"])
    parser.add_argument("source", type=Path, help="a run's folder to split, or a folder of parts to join")
    parser.add_argument("target", type=Path, help="the folder of parts, or of the run")
    parser.add_argument("--exact", action="store_true", help="keep every bit (16 bytes a parameter)")
    args = parser.parse_args()
    try:
        if args.what == "split":
            index = split(args.source, args.target, args.exact)
            size = sum(part["bytes"] for part in index["parts"]) / 1e6
            print(f"wrote step {index['step']} as {len(index['parts'])} parts, {size:.1f} MB, to {args.target}")
        else:
            print(f"{args.target} is at step {join(args.source, args.target)}")
    except UserError as error:
        print(f"checkpoint_parts: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
