"""JPEG and PNG as numbers `[bands, H, W]`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satdifuser.data.files.fitting import BadImageError, Fitting

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".jpg", ".jpeg", ".png")
BANDS = {"1": 1, "L": 1, "LA": 1, "I;16": 1, "I;16B": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3}
ORIENTATION = 0x0112  # EXIF's number for it


def read_picture(path: Path, fitting: Fitting) -> np.ndarray[Any, Any]:
    """As much of the picture as the fitting keeps, upright; where it is transparent there is no data."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size is looked at here
        picture = Image.open(path, formats=("JPEG", "PNG"))
    with picture:
        if picture.mode not in BANDS:
            raise BadImageError(f"has its colours as {picture.mode}: save it as RGB or greyscale")
        if ";16" in str(picture.tile) and not picture.mode.startswith("I;16"):  # Pillow would keep 8 of them
            raise BadImageError("is a PNG of 16 bits, which can have one band: save it as GeoTIFF")
        if picture.format == "PNG" and getattr(picture, "n_frames", 1) > 1:
            raise BadImageError(f"holds {picture.n_frames} images: save each to a file of its own")  # type: ignore[attr-defined]
        fitting.check(BANDS[picture.mode], picture.height, picture.width)
        fitting.check_room(picture.height * picture.width * BANDS[picture.mode], picture.height, picture.width)
        numbers = _numbers(picture)
    rows, columns = fitting.part(*numbers.shape[1:])
    return numbers[:, rows, columns]


def _numbers(picture: Image) -> np.ndarray[Any, Any]:
    clear = picture.info.get("transparency")
    if picture.mode.startswith("I;16"):
        numbers = np.asarray(picture)
        numbers = numbers if clear is None else np.where(numbers == clear, 0, numbers).astype(np.uint16)
        return _upright(numbers, picture)[None]
    if picture.mode in ("RGBA", "LA", "PA") or clear is not None:
        numbers = np.asarray(picture.convert("LA" if BANDS[picture.mode] == 1 else "RGBA")).copy()
        numbers[numbers[..., -1] == 0] = 0
        numbers = numbers[..., :-1]
    else:
        mode = "L" if BANDS[picture.mode] == 1 else "RGB"
        numbers = np.asarray(picture if picture.mode == mode else picture.convert(mode))
    turned = _upright(numbers, picture)
    return turned.transpose(2, 0, 1) if turned.ndim == 3 else turned[None]


def _upright(numbers: np.ndarray[Any, Any], picture: Image) -> np.ndarray[Any, Any]:
    """Turned and mirrored as EXIF says it is to be shown; of a decoded picture, since a PNG may say it at its end."""
    try:
        turn = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # what cannot be read says nothing
        return numbers
    if turn in (5, 6, 7, 8):
        numbers = numbers.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        numbers = numbers[::-1]
    return numbers[:, ::-1] if turn in (2, 3, 6, 7) else numbers
