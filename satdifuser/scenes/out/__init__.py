"""What comes out: units on disk until all are there, then a COG, Zarr or GeoParquet, and a picture."""

from pathlib import Path

from satdifuser.data.files.names import shown
from satdifuser.errors import UserError
from satdifuser.scenes.out.base import Output, Target

SUFFIXES = (".tif", ".tiff")


def open_output(path: str, target: Target) -> Output:
    """What writes this kind of file, by the end of its name."""
    from satdifuser.scenes.out.cog import Cog

    suffix = Path(path).suffix.lower()
    if suffix in (".tif", ".tiff"):
        return Cog(path, target)
    raise UserError(f"out={shown(path)} does not say what to write: give a name that ends in {', '.join(SUFFIXES)}")
