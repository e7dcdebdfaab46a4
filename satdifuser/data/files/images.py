"""One door to files of images: opened by what their names end with, and whatever is wrong with one is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from satdifuser.data.files.arrays import ARRAYS, HDF5, hdf5, npy
from satdifuser.data.files.fitting import SKIP, BadImageError
from satdifuser.data.files.geotiff import RASTERS, geotiff
from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Ask, Opened
from satdifuser.data.files.pictures import PICTURES, picture
from satdifuser.errors import UserError

KINDS = (*PICTURES, *RASTERS, *ARRAYS, *HDF5)


@contextmanager
def open_image(path: Path, ask: Ask, key: str | None = None) -> Iterator[Opened]:
    """The file, open; errors, those of reading it too, name it and say what to do."""
    suffix = path.suffix.lower()
    try:
        if suffix in PICTURES:
            kind = picture(path, ask)
        elif suffix in RASTERS:
            kind = geotiff(path, ask)
        elif suffix in ARRAYS:
            kind = npy(path, ask)
        elif suffix in HDF5:
            kind = hdf5(path, key, ask)
        else:
            raise BadImageError(f"is of a kind that is not read: it can be {', '.join(KINDS)}")
        with kind as opened:
            yield opened
    except BadImageError as fault:
        raise UserError(f"{shown(path)} {fault} {SKIP}") from fault
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:  # damaged files make Pillow, rasterio and h5py raise all kinds
        reason = shown(" ".join(str(error).replace(str(path), "the file").split()))
        raise UserError(f"{shown(path)} cannot be read as an image ({reason}): replace or remove it {SKIP}") from error
