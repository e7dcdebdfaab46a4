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
EXTRAS = {
    "h5py": "data",
    "pyarrow": "data",
    "xformers": "xformers",
    "fsspec": "cloud",
    "s3fs": "cloud",
    "gcsfs": "cloud",
    "wandb": "wandb",
}  # the extra of ours that brings a library


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
        module = _module(cause)
        name = IMPORTED.get(module, module)
        if not name or name.startswith(("satdifuser", "deflect")):
            continue
        what = f"{name} ({OPTIONAL[name]})" if name in OPTIONAL else name
        if not there(module):
            if name in OPTIONAL or name in EXTRAS:
                extra = EXTRAS.get(name)
                return f"this needs {what}, which is not installed: pip install {_wanted(name, extra)}"
        elif name in OPTIONAL or name in EXTRAS:
            reason = " ".join(str(cause).split())[:200]
            return f"this needs {what}, which is installed but cannot be loaded ({reason}): install it again"
    return None


def _wanted(name: str, extra: str | None) -> str:
    return name if extra is None else f"'satdifuser[{extra}]'"


def _module(cause: BaseException) -> str:
    """The package that an import failed in; of an import of a name from a package that is there, that package."""
    if not isinstance(cause, ImportError):
        return ""
    return (cause.name or "").partition(".")[0]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
