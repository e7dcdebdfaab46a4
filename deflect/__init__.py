"""deflect: discriminative geospatial encoders as feature banks, and DEFLECT, which adapts them to multispectral images.

    adapted = deflect.adapt(vit, deflect.DeflectConfig(bands=sensor, modules_to_save=["head"]))
    adapted.print_trainable_parameters()
    logits = adapted(rgb, spectra=reflectance)

Of satdifuser it uses the bank alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deflect.bands import Band as Band
    from deflect.galileo import GalileoEncoder as GalileoEncoder
    from deflect.model import DeflectConfig as DeflectConfig
    from deflect.model import DeflectModel as DeflectModel
    from deflect.model import adapt as adapt
    from deflect.olmoearth import OlmoEarthEncoder as OlmoEarthEncoder
    from deflect.vit import ViTEncoder as ViTEncoder

ROOMS = {
    "Band": "bands",
    "GalileoEncoder": "galileo",
    "OlmoEarthEncoder": "olmoearth",
    "ViTEncoder": "vit",
    **dict.fromkeys(("DeflectConfig", "DeflectModel", "adapt"), "model"),
}
__all__ = ["Band", "DeflectConfig", "DeflectModel", "GalileoEncoder", "OlmoEarthEncoder", "ViTEncoder", "adapt"]


def __getattr__(name: str) -> Any:
    """torch and spyndex load with the first use, not with `import deflect`."""
    from importlib import import_module

    if name not in ROOMS:
        raise AttributeError(f"module 'deflect' has no attribute {name!r}")
    return getattr(import_module(f"deflect.{ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
