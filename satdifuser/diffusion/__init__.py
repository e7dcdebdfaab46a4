"""Diffusion backbones as encoders: loading, noising, taps, and the encoder itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satdifuser.diffusion.encoder import DiffusionEncoder as DiffusionEncoder
    from satdifuser.diffusion.loading import diffusionsat as diffusionsat
    from satdifuser.diffusion.loading import stable_diffusion as stable_diffusion
    from satdifuser.diffusion.loading import unconditional as unconditional

ROOMS = {
    "DiffusionEncoder": "encoder",
    **dict.fromkeys(("diffusionsat", "stable_diffusion", "unconditional"), "loading"),
}
__all__ = ["DiffusionEncoder", "diffusionsat", "stable_diffusion", "unconditional"]


def __getattr__(name: str) -> Any:
    """torch and diffusers load with the first use."""
    from importlib import import_module

    if name not in ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
