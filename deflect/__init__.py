"""deflect: discriminative geospatial encoders as feature banks, and DEFLECT, which adapts them to multispectral images.

    adapted = deflect.adapt(vit, deflect.DeflectConfig(bands=sensor, modules_to_save=["head"]))
    adapted.print_trainable_parameters()
    logits = adapted(rgb, spectra=reflectance)

Of satdifuser it uses the bank, and little besides that stands alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from satdifuser.lazily import lazily

if TYPE_CHECKING:
    from deflect.bands import Band as Band
    from deflect.galileo import GalileoEncoder as GalileoEncoder
    from deflect.model import DeflectConfig as DeflectConfig
    from deflect.model import DeflectModel as DeflectModel
    from deflect.model import adapt as adapt
    from deflect.olmoearth import OlmoEarthEncoder as OlmoEarthEncoder
    from deflect.vit import ViTEncoder as ViTEncoder

ROOMS = {
    "Band": "deflect.bands",
    "GalileoEncoder": "deflect.galileo",
    "OlmoEarthEncoder": "deflect.olmoearth",
    "ViTEncoder": "deflect.vit",
    **dict.fromkeys(("DeflectConfig", "DeflectModel", "adapt"), "deflect.model"),
}
__all__ = ["Band", "DeflectConfig", "DeflectModel", "GalileoEncoder", "OlmoEarthEncoder", "ViTEncoder", "adapt"]

__getattr__, __dir__ = lazily(__name__, ROOMS)
