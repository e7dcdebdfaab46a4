"""Libraries that extraction, training and pretraining run without: what each is for, and what is said where one is not.

A machine may have none of them (a cluster's node, say). What needs one imports it where it is used.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator

OPTIONAL = {
    "torchgeo": "geospatial ViTs and data sets",
    "timm": "ViT encoders and CNNs",
    "torchvision": "timm and torchgeo",
    "segmentation-models-pytorch": "the decoders fpn, dpt and unet",
    "peft": "LoRA and its kin",
    "transformers": "prompts of text-to-image models",
    "spyndex": "spectral indices",
    "rasterio": "GeoTIFF",
    "h5py": "GEO-Bench and other files of HDF5",
    "pyarrow": "GEO-Bench-2 and other files with an index of Parquet",
    "kornia": "augmentation",
    "matplotlib": "figures",
    "scikit-learn": "probes and the report of a comparison",
    "tensorboard": "training curves",
    "xformers": "its attention kernels",
}  # by the names that pip knows
IMPORTED = {
    "sklearn": "scikit-learn",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
}  # those that are imported by another


def there(name: str) -> bool:
    """Whether a library is installed; it is not loaded.

    >>> there("json"), there("no_such_library")
    (True, False)
    """
    return importlib.util.find_spec(name) is not None


def without(name: str, lost: str) -> bool:
    """Whether a library is missing; then a line says, once, what is lost, and the work goes on."""
    if there(name):
        return False
    _say_once(f"{name} is not installed: {lost}")
    return True


@functools.cache
def _say_once(line: str) -> None:
    from satdifuser.engine.progress import say

    say(line)


def missing(error: BaseException) -> str | None:
    """What to do about an error that comes from a library's absence; None where it comes from something else.

    >>> missing(KeyError("peft"))
    """
    for cause in _causes(error):
        module = (cause.name or "").partition(".")[0] if isinstance(cause, ModuleNotFoundError) else ""
        name = IMPORTED.get(module, module)
        if name in OPTIONAL and not there(module):
            return f"this needs {name} ({OPTIONAL[name]}), which is not installed: pip install {name}"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
