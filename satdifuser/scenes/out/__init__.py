"""What comes out: units on disk until all are there, then a COG, Zarr or GeoParquet, and a picture."""

from pathlib import Path

from satdifuser.data.files.names import shown
from satdifuser.errors import UserError
from satdifuser.scenes.out.base import Output, Target

SUFFIXES = (".tif", ".tiff", ".zarr", ".parquet")


def open_output(path: str, target: Target) -> Output:
    """What writes this kind of file, by the end of its name."""
    suffix = Path(path).suffix.lower()
    if suffix in (".tif", ".tiff"):
        from satdifuser.scenes.out.cog import Cog

        return Cog(path, target)
    if suffix == ".zarr":
        from satdifuser.scenes.out.zarr_group import ZarrGroup

        return ZarrGroup(path, target)
    if suffix == ".parquet":
        if target.form.dense:
            raise UserError(
                f"out={shown(path)} would be a table of tiles, and there is an answer for each pixel: give a name that"
                " ends in .tif or .zarr"
            )
        from satdifuser.scenes.out.tiles import Tiles

        return Tiles(path, target)
    raise UserError(f"out={shown(path)} does not say what to write: give a name that ends in {', '.join(SUFFIXES)}")
