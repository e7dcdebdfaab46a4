"""`satdifuser doctor`: what is installed, which attention is used and why, which weights are found, what would fail."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from satdifuser.optional import OPTIONAL

NEEDED = (
    "torch",
    "diffusers",
    "accelerate",
    "einops",
    "hydra-core",
    "zarr",
    "safetensors",
    "torchmetrics",
)
MIN_TORCH = (2, 10)


@dataclass(frozen=True)
class Finding:
    """One line of the report: `ok`, `note` (works without) or `fail` (something will not work)."""

    status: str
    what: str
    detail: str


def run() -> int:
    """Print the findings; exit code 1 if anything would fail."""
    from rich.console import Console

    console = Console()
    marks = {"ok": "[green]ok  [/]", "note": "[yellow]note[/]", "fail": "[red]fail[/]"}
    findings = examine()
    for finding in findings:
        console.print(
            f"{marks[finding.status]}  [bold]{finding.what}[/]  {finding.detail}", highlight=False, soft_wrap=True
        )
    failed = [finding.what for finding in findings if finding.status == "fail"]
    console.print(f"\nwould fail: {', '.join(failed)}" if failed else "\neverything that satdifuser needs is here")
    return 1 if failed else 0


def examine() -> list[Finding]:
    return [*_python(), *_packages(), *_device(), *_attention(), *_weights(), *_disk()]


def _python() -> list[Finding]:
    status = "ok" if sys.version_info >= (3, 11) else "fail"
    return [Finding(status, "python", f"{platform.python_version()} on {platform.machine()} (3.11 or newer)")]


def _packages() -> list[Finding]:
    found = []
    for name in NEEDED:
        version = _version(name)
        found.append(Finding("ok" if version else "fail", name, version or f"missing: pip install {name}"))
    for name, use in OPTIONAL.items():
        version = _version(name)
        found.append(Finding("ok" if version else "note", name, version or f"not installed; needed for {use}"))
    torch = _version("torch")
    if torch and tuple(int(part) for part in torch.split(".")[:2]) < MIN_TORCH:
        found.append(Finding("fail", "torch", f"{torch} is older than {'.'.join(map(str, MIN_TORCH))}"))
    return found


def _device() -> list[Finding]:
    if not _version("torch"):
        return []
    import torch

    if not torch.cuda.is_available():
        return [
            Finding("note", "device", f"CPU with {torch.get_num_threads()} threads; no CUDA GPU is visible to torch")
        ]
    return [
        Finding(
            "ok", f"GPU {i}", f"{(p := torch.cuda.get_device_properties(i)).name}, {p.total_memory / 2**30:.0f} GiB"
        )
        for i in range(torch.cuda.device_count())
    ]


def _attention() -> list[Finding]:
    """Which attention kernels run: asked by running them, not by looking at version numbers."""
    if not _version("torch"):
        return []
    import torch
    import torch.nn.functional as F

    device = "cuda" if torch.cuda.is_available() else "cpu"
    q = torch.zeros(1, 2, 16, 32, device=device, dtype=torch.float16 if device == "cuda" else torch.float32)
    kernels = []
    from torch.nn.attention import SDPBackend, sdpa_kernel

    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH):
        try:
            with sdpa_kernel(backend):
                F.scaled_dot_product_attention(q, q, q)
            kernels.append(backend.name.removesuffix("_ATTENTION").lower())
        except RuntimeError:
            continue
    found = [Finding("ok", "attention", f"torch SDPA on {device}; its kernels that run here: {', '.join(kernels)}")]
    if _version("xformers"):
        from satdifuser.diffusion.attention import xformers_problem

        problem = xformers_problem(torch.device(device))
        found.append(
            Finding("ok", "xformers", "its kernels run here; used with encoder.attention=xformers")
            if problem is None
            else Finding("note", "xformers", f"installed, but {problem}; SDPA is used")
        )
    return found


def _weights() -> list[Finding]:
    if not _version("diffusers"):
        return []
    from satdifuser.diffusion.loading import SHIPPED, WEIGHTS, unconditional
    from satdifuser.errors import UserError

    try:
        backbone = unconditional("small")
    except UserError as error:
        return [Finding("fail", "encoder=small", str(error))]
    size = (SHIPPED["small"] / WEIGHTS).stat().st_size / 1e6
    return [
        Finding("ok", "encoder=small", f"shipped weights {backbone.fingerprint}, {size:.1f} MB"),
        *_checkpoints(),
        *_vits(),
    ]


def _checkpoints() -> list[Finding]:
    """Whether the folders and files that published checkpoints are looked for in are there."""
    from satdifuser.config import compose

    found = []
    for names, word, is_there in (
        (("diffusionsat", "stable_diffusion", "unconditional"), "in", Path.is_dir),
        (("prithvi", "prithvi2", "terramind", "dinomc", "crossscalemae", "galileo"), "at", Path.exists),
    ):
        for name in names:
            part = compose("extract", [f"encoder={name}"]).encoder
            holder, setting = (part["backbone"], "encoder.backbone") if "backbone" in part else (part, "encoder")
            weights = str(holder["weights"])
            there = is_there(Path(weights).expanduser())
            detail = f"weights in {weights}" if there else f"no weights {word} {weights}: set {setting}.weights"
            found.append(Finding("ok" if there else "note", f"encoder={name}", detail))
    return found


def _vits() -> list[Finding]:
    """The shipped ViT, and whether the files of the geospatial ones lie in torch's cache."""
    if not _version("timm"):
        return []
    from satdifuser.build import build_encoder
    from satdifuser.config import compose
    from satdifuser.errors import UserError

    try:
        spec: Any = build_encoder(compose("extract", ["encoder=small_vit"]).encoder).spec
        found = [Finding("ok", "encoder=small_vit", f"shipped weights {spec.weights}")]
    except UserError as error:
        found = [Finding("fail", "encoder=small_vit", str(error))]
    if not _version("torchgeo"):
        return found
    from torch.hub import get_dir
    from torchgeo.models import get_weight

    for name in ("scalemae", "ssl4eo", "dofa", "croma", "copernicusfm", "panopticon"):
        weights = str(compose("extract", [f"encoder={name}"]).encoder["backbone"]["weights"])
        file = Path(get_dir()) / "checkpoints" / get_weight(weights).url.rpartition("/")[2]
        there = f"{weights} in {file}" if file.is_file() else f"{weights} will be downloaded to {file}"
        found.append(Finding("ok" if file.is_file() else "note", f"encoder={name}", there))
    return found


def _disk() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return [Finding("ok" if free > 5 else "note", "disk", f"{free:.0f} GB free here")]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
