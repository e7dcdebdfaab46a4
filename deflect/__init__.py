"""deflect: discriminative geospatial encoders as feature banks, and DEFLECT, which adapts them to multispectral images.

    adapted = deflect.adapt(vit, deflect.DeflectConfig(bands=sensor))
    adapted.print_trainable_parameters()
    logits = adapted(rgb, spectra=reflectance)

Of satdifuser it uses the bank alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deflect.bands import Band as Band
    from deflect.model import DeflectConfig as DeflectConfig
    from deflect.model import DeflectModel as DeflectModel
    from deflect.model import adapt as adapt

__all__ = ["Band", "DeflectConfig", "DeflectModel", "adapt"]


def __getattr__(name: str) -> Any:
    """torch and spyndex load with the first use, not with `import deflect`."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'deflect' has no attribute {name!r}")
    return getattr(import_module("deflect.bands" if name == "Band" else "deflect.model"), name)
