"""A file as an image in reflectance: the numbers of a picture or a raster, and what one of them is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from satdifuser.data.files.fitting import BadImageError, Fitting
from satdifuser.data.files.geotiff import Raster, read_raster
from satdifuser.data.files.names import shown
from satdifuser.data.files.pictures import PICTURES, read_picture
from satdifuser.errors import UserError

SKIP = "(extract and pretrain can leave it out: on_error=skip)"


def read_image(path: Path, fitting: Fitting, white: float, digital: float) -> Tensor:
    """float32 `[bands, H, W]`, 0 where there is no data; whatever is wrong with the file is one line that names it."""
    try:
        if path.suffix.lower() in PICTURES:
            numbers = read_picture(path, fitting)
            return torch.from_numpy(_floats(numbers)) / _unit(numbers.dtype, white, digital)
        return _scaled(read_raster(path, fitting), white, digital)
    except BadImageError as fault:
        raise UserError(f"{shown(path)} {fault} {SKIP}") from fault
    except UserError:
        raise
    except Exception as error:  # damaged files make Pillow and rasterio raise all kinds
        reason = shown(" ".join(str(error).replace(str(path), "the file").split()))
        raise UserError(f"{shown(path)} cannot be read as an image ({reason}): replace or remove it {SKIP}") from error


def _unit(kind: np.dtype[Any], white: float, digital: float) -> float:
    """What number is a reflectance of 1. Of 8 bits, 255 is `white`; floating point is reflectance."""
    if kind == np.int8:
        raise BadImageError(
            "holds signed numbers of 8 bits (int8), which are no reflectance: save it as uint8 or int16"
        )
    return 255 / white if kind == np.uint8 else digital if kind.kind in "iu" else 1.0


def _scaled(raster: Raster, white: float, digital: float) -> Tensor:
    """By the file's own scale and offset, where it has them; an offset alone is in the unit of the numbers."""
    numbers, blank = raster.numbers, raster.blank
    unit = _unit(numbers.dtype, white, digital) if raster.scales is None else 1.0
    if raster.offsets is not None and numbers.dtype.kind == "u":  # their zero is no data, and not the offset
        blank = numbers == 0 if blank is None else blank | (numbers == 0)
    image = _floats(numbers)
    for band in range(len(numbers)) if raster.scales or raster.offsets else ():
        scale = np.float64(raster.scales[band] if raster.scales else 1.0)
        image[band] = numbers[band] * scale + (raster.offsets[band] if raster.offsets else 0.0)
    if blank is not None:
        image[blank] = 0.0
    return torch.from_numpy(image) / unit


def _floats(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused as that
        return numbers.astype(np.float32)
