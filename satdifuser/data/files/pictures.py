"""JPEG and PNG as numbers `[bands, H, W]`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.files.opened import Array, Ask, Numbers, Opened

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".jpg", ".jpeg", ".png")
BANDS = {"1": 1, "L": 1, "LA": 1, "I;16": 1, "I;16B": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3}
ORIENTATION = 0x0112  # EXIF's number for it


@contextmanager
def picture(path: Path, ask: Ask) -> Iterator[Opened]:
    """The file, open, its header read."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size is looked at by who reads it
        opened = Image.open(path, formats=("JPEG", "PNG"))
    with opened:
        yield Picture(opened, ask)


class Picture(Opened):
    """Upright, its palette's colours in place of their numbers (or these, of a mask); transparent is no data."""

    def __init__(self, image: Image, ask: Ask) -> None:
        self.image, self.ask = image, ask
        if image.mode not in BANDS:
            raise BadImageError(f"has its colours as {image.mode}: save it as RGB or greyscale")
        if ";16" in str(getattr(image, "tile", "")) and not image.mode.startswith("I;16"):  # Pillow keeps 8 of them
            raise BadImageError("is a PNG of 16 bits, which can have one band: save it as GeoTIFF")
        if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
            raise BadImageError(f"holds {image.n_frames} images: save each to a file of its own")  # type: ignore[attr-defined]
        numbered = ask.use == "numbers" and image.mode in ("P", "1")
        self.count = 1 if numbered else 3 if ask.use == "colours" else BANDS[image.mode]
        if ask.alpha == "data" and image.mode == "RGBA":
            self.count = 4
        self.height, self.width = image.height, image.width
        if _turn(image, early=True) in (5, 6, 7, 8):
            self.height, self.width = self.width, self.height

    def decoded(self, bands: Sequence[int], rows: slice, columns: slice) -> int:
        """All of it, whatever is wanted."""
        return self.height * self.width * self.count

    def read(self, bands: Sequence[int], rows: slice, columns: slice) -> Numbers:
        numbers, blank = self._numbers()
        turn = _turn(self.image)
        if turn != 1:
            numbers, blank = _upright(numbers, turn), None if blank is None else _upright(blank, turn)
        if numbers.shape[:2] != (self.height, self.width):
            raise BadImageError("is turned, and says so only at its end: save it upright")
        numbers = numbers[rows, columns]
        cut = numbers[None] if numbers.ndim == 2 else numbers.transpose(2, 0, 1)[list(bands)]
        gone = None if blank is None else np.broadcast_to(blank[rows, columns], cut.shape)
        return Numbers(cut, gone)

    def _numbers(self) -> tuple[Array, Array | None]:
        """`[H, W]` or `[H, W, bands]`, and where it is clear."""
        image, use = self.image, self.ask.use
        clear = image.info.get("transparency")
        if use == "colours":
            return np.asarray(image.convert("RGB")), None
        if use == "numbers" and image.mode in ("P", "1"):
            found = np.asarray(image)
            return (found.astype(np.uint8) if found.dtype == bool else found), None
        if image.mode.startswith("I;16"):
            found = np.asarray(image)
            return found, None if clear is None or use == "numbers" else found == clear
        if self.count == 4:
            return np.asarray(image), None
        if image.mode in ("RGBA", "LA", "PA") or clear is not None:
            found = np.asarray(image.convert("LA" if BANDS[image.mode] == 1 else "RGBA"))
            colours = found[..., 0] if found.shape[-1] == 2 else found[..., :-1]
            return colours, None if use == "numbers" else found[..., -1] == 0
        mode = "L" if BANDS[image.mode] == 1 else "RGB"
        return np.asarray(image if image.mode == mode else image.convert(mode)), None


def _turn(image: Image, early: bool = False) -> int:
    """How EXIF says it is to be turned; a PNG may say it at its end, which only a decoded one knows."""
    if early and image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # what cannot be read says nothing
        return 1


def _upright(numbers: np.ndarray[Any, Any], turn: int) -> np.ndarray[Any, Any]:
    """Turned and mirrored as it is to be shown."""
    if turn in (5, 6, 7, 8):
        numbers = numbers.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        numbers = numbers[::-1]
    return numbers[:, ::-1] if turn in (2, 3, 6, 7) else numbers
