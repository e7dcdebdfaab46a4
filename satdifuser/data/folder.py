"""A tree of images on disk, a folder for each class (or none at all), as a labelled data set: JPEG, PNG and GeoTIFF."""

from __future__ import annotations

import colorsys
import hashlib
import math
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from satdifuser.data.bands import Sensor, find_sensor
from satdifuser.data.base import Batch, LabelledDataset, Labels, Sample
from satdifuser.data.budgets import Within
from satdifuser.data.holdout import check_split, held_out
from satdifuser.errors import UserError, nearest

PICTURES, RASTERS = (".jpg", ".jpeg", ".png"), (".tif", ".tiff")
FITS = ("none", "crop", "resize")
LOOKED_AT, LOOKED_AT_BYTES = 32, 2**18  # files of a split, and how much of the middle of each, by which it is known


class ImageFolder(Dataset[Sample]):
    """The images below `root`; the first folder on the way to an image is its class, and images in `root` have none.

    A sample's id is its path below `root`. `split` is train, val, test (see `holdout.py` for the rule) or all.

    Numbers become reflectance: of 8 bits, 255 is `white`; of more, `digital` is a reflectance of 1; floating point is
    reflectance already. An image of another size than `size` is refused by who reads it (`fit=none`), cut from its
    middle (`crop`), or resized (`resize`). `classes` names the folders that count, in order; null: all, sorted. `limit`
    takes at most so many of the split, evenly from the classes.
    """

    name = "image_folder"
    places = ("root",)  # settings that say where the samples lie; which they are is in `identity`

    def __init__(
        self,
        root: str,
        split: str = "train",
        *,
        sensor: Sensor | str,
        size: int = 64,
        fit: str = "none",
        val: float = 0.1,
        test: float = 0.1,
        white: float = 0.275,
        digital: float = 10000.0,
        classes: list[str] | None = None,
        limit: int | None = None,
    ) -> None:
        check_split(split)
        if fit not in FITS:
            raise UserError(f"data.fit is {fit!r}: it can be {', '.join(FITS)}{nearest(fit, FITS)}")
        if white <= 0 or digital <= 0:
            raise UserError(f"data.white is {white} and data.digital is {digital}: both must be above 0")
        self.root, self.split, self.size, self.fit = Path(root).expanduser(), split, size, fit
        self.sensor, self.white, self.digital = find_sensor(sensor), float(white), float(digital)
        names = _by_class(self.root, None if classes is None else [str(name) for name in classes])
        self.files = held_out(names, val, test)[split]
        if not self.files:
            raise UserError(
                f"data.root {self.root} has no images for {split}: of {_count(names)}, data.val={val} and"
                f" data.test={test} of each class leave none; set other shares, or add images"
            )
        if limit is not None:
            if limit < 1:
                raise UserError(f"data.limit is {limit} for {split}: it must be 1 or more, or null for all")
            count = len(self.files)  # in the order of their classes
            self.files = [self.files[place * count // limit] for place in range(limit)] if limit < count else self.files
        known = tuple(names) if list(names) != [""] else ()
        self.labels = Labels(classes=known, colours=_colours(len(known)))

    @property
    def identity(self) -> dict[str, Any]:
        """What a feature store records of where its samples come from: which files, not where they lie."""
        return {
            "name": self.name,
            "split": self.split,
            "files": len(self.files),
            "names and sizes": self._digest,
            "contents": self._contents,
            "classes": list(self.labels.classes),
            "size": self.size,
            "fit": self.fit,
            "white": self.white,
            "digital": self.digital,
        }

    @cached_property
    def _digest(self) -> str:
        sizes = (f"{name}\0{(self.root / name).stat().st_size}" for name in self.files)
        return hashlib.blake2b("\n".join(sizes).encode(), digest_size=8).hexdigest()

    @cached_property
    def _contents(self) -> str:
        """Of some files, evenly chosen: uncompressed images of one shape all have one size."""
        found = hashlib.blake2b(digest_size=8)
        for place in sorted({number * len(self.files) // LOOKED_AT for number in range(LOOKED_AT)}):
            path = self.root / self.files[place]
            with path.open("rb") as file:
                file.seek(max(0, (path.stat().st_size - LOOKED_AT_BYTES) // 2))
                found.update(file.read(LOOKED_AT_BYTES))
        return found.hexdigest()

    def sample_id(self, index: int) -> str:
        return self.files[index]

    def read_labels(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Batch:
        """Ids and classes, which are in the files' names: no image is read."""
        ids = [self.files[index] for index in indices]
        if not self.labels.classes or (names is not None and "label" not in names):
            return {"id": ids}
        return {"id": ids, "label": torch.tensor([self._class(name) for name in ids], dtype=torch.long)}

    def subset(self, indices: Sequence[int]) -> LabelledDataset:
        return Within(self, indices)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        name = self.files[index]
        sample: Sample = {"id": name, "image": self._fitted(self._reflectance(name), name)}
        if self.labels.classes:
            sample["label"] = torch.tensor(self._class(name))
        return sample

    def _class(self, name: str) -> int:
        return self.labels.classes.index(name.partition("/")[0])

    def _reflectance(self, name: str) -> Tensor:
        path = self.root / name
        try:
            numbers = _picture(path) if path.suffix.lower() in PICTURES else _raster(path)
        except UserError:
            raise
        except Exception as error:  # damaged files make Pillow and rasterio raise all kinds
            reason = " ".join(str(error).split()).replace(str(path), "the file")
            raise UserError(
                f"{path} cannot be read as an image ({reason}): replace or remove it (extract and pretrain can"
                " leave it out: on_error=skip)"
            ) from error
        whole = numbers.dtype.kind in "iu"
        unit = 255 / self.white if numbers.dtype == np.uint8 else self.digital if whole else 1.0
        return torch.from_numpy(numbers.astype(np.float32)) / unit

    def _fitted(self, image: Tensor, name: str) -> Tensor:
        if self.fit == "none" or tuple(image.shape[1:]) == (self.size, self.size):
            return image
        if self.fit == "resize":
            resized: Tensor = F.interpolate(image[None], (self.size, self.size), mode="bilinear", antialias=True)[0]
            return resized
        height, width = image.shape[1:]
        top, left = (height - self.size) // 2, (width - self.size) // 2
        if min(top, left) < 0:
            raise UserError(
                f"{self.root / name} is {height} x {width} px, too small to cut {self.size} x {self.size} from it:"
                " set data.fit=resize, or a smaller data.size"
            )
        return image[:, top : top + self.size, left : left + self.size]


def _by_class(root: Path, classes: list[str] | None) -> dict[str, list[str]]:
    """Class -> paths of its images below the root; the class of images that lie in the root itself is ''."""
    if not root.is_dir():
        raise UserError(f"data.root {root.absolute()} is no folder: give the one that holds the class folders")
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    missing = [name for name in classes or () if name not in folders]
    if missing:
        raise UserError(f"data.root {root} has no folder {missing[0]}: it has {', '.join(folders)}")
    found = {name: _images(root / name, root) for name in (folders if classes is None else classes)}
    empty = [name for name in classes or () if not found[name]]
    if empty:
        raise UserError(f"data.root {root} has no images in {empty[0]}: leave it out of data.classes")
    found = {name: images for name, images in found.items() if images}
    loose = [] if classes is not None else _images(root, root, deep=False)
    if loose and found:
        raise UserError(
            f"data.root {root} has images beside class folders ({loose[0]}, {next(iter(found))}): move them into one,"
            " or name the folders in data.classes"
        )
    if not loose and not found:
        raise UserError(f"data.root {root} has no images ({', '.join((*PICTURES, *RASTERS))}) in it or in its folders")
    return found or {"": loose}


def _images(folder: Path, root: Path, deep: bool = True) -> list[str]:
    paths = folder.rglob("*") if deep else folder.iterdir()
    wanted = [path for path in paths if path.suffix.lower() in (*PICTURES, *RASTERS) and path.is_file()]
    names = [path.relative_to(root).as_posix() for path in wanted]
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def _count(names: dict[str, list[str]]) -> str:
    return f"{sum(map(len, names.values()))} images in {len(names)} classes"


def _picture(path: Path) -> np.ndarray[Any, Any]:
    """A JPEG or PNG as `[bands, H, W]`; where it is transparent there is no data."""
    from PIL import Image

    with Image.open(path) as picture:
        clear = picture.info.get("transparency")
        if picture.mode.startswith("I;16"):
            numbers = np.asarray(picture)
            numbers = numbers if clear is None else np.where(numbers == clear, 0, numbers).astype(np.uint16)
        elif ";16" in str(picture.tile):  # Pillow would keep 8 of them, without a word
            raise ValueError("a PNG of 16 bits can have one band: save this as GeoTIFF")
        elif picture.mode in ("RGBA", "LA", "PA") or clear is not None:
            numbers = np.asarray(picture.convert("LA" if picture.mode in ("L", "LA") else "RGBA")).copy()
            numbers[numbers[..., -1] == 0] = 0
            numbers = numbers[..., :-1]
        elif picture.mode in ("RGB", "L"):
            numbers = np.asarray(picture)
        else:
            numbers = np.asarray(picture.convert("RGB"))
    return numbers.transpose(2, 0, 1) if numbers.ndim == 3 else numbers[None]


def _raster(path: Path) -> np.ndarray[Any, Any]:
    """A GeoTIFF as `[bands, H, W]`; what it says is no data becomes 0."""
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
    except ImportError as error:
        raise UserError(f"{path} is a GeoTIFF, and rasterio is not installed: pip install rasterio") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as file:
                numbers: np.ndarray[Any, Any] = file.read(masked=True).filled(0)
        except RasterioIOError as error:
            raise OSError(str(error.__cause__ or error)) from error  # "see previous exception": the cause has the words
    return numbers


def _colours(count: int) -> tuple[str, ...]:
    """As many colours, far apart on the wheel."""
    golden = (math.sqrt(5) - 1) / 2
    wheel = (colorsys.hls_to_rgb(number * golden % 1.0, 0.45 + 0.15 * (number % 2), 0.6) for number in range(count))
    return tuple("#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in wheel)
