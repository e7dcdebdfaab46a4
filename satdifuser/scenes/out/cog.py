"""A cloud-optimised GeoTIFF: units are GeoTIFFs, a VRT holds them together, and GDAL makes the COG of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from satdifuser.data.files.quiet import quiet
from satdifuser.errors import UserError
from satdifuser.scenes.out.base import Array, Target
from satdifuser.scenes.out.forms import bands_of, nodata_of, scales_of
from satdifuser.scenes.out.partial import IDENTITY, Partial, Piece

CLASSES, COLOURS = "SATDIFUSER_CLASSES", "SATDIFUSER_COLOURS"
CACHE = 128 * 2**20  # of GDAL's blocks while the file is made
BLOCK_BYTES = 32 * 2**20  # of all bands of a block, which are decoded together
GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16", "int8": "Int8", "float32": "Float32"}


class Cog(Partial):
    """Tiled, compressed, with overviews; classes with a colour table, and all names in the file's own tags."""

    suffix = ".tif"

    def __init__(self, path: str, target: Target) -> None:
        super().__init__(path, target)
        if target.form.dtype not in GDAL_TYPES:
            raise UserError(
                f"{path} is to be a GeoTIFF, which holds no {target.form.dtype}: set dtype=float32 or dtype=int8, or"
                " give out=....zarr"
            )

    def unit_bytes(self, array: Array, nodata: float) -> bytes:
        from rasterio.io import MemoryFile

        bands, height, width = array.shape
        size: dict[str, Any] = {"count": bands, "height": height, "width": width, "dtype": str(array.dtype)}
        side = block_of(bands, str(array.dtype))  # as in the file that is made of it, so that it is decoded once
        how: dict[str, Any] = {"tiled": True, "interleave": "band", "bigtiff": "if_safer"}
        how |= {"blockxsize": min(side, _sixteens(width)), "blockysize": min(side, _sixteens(height))}
        if array.dtype.kind != "f":  # what floats lose is not worth the time
            how |= {"compress": "deflate", "zlevel": 1}
        with quiet(), MemoryFile() as memory:
            with memory.open(driver="GTiff", **size, **how) as file:
                file.write(array)
            return bytes(memory.read())

    def assemble(self, pieces: Sequence[Piece], result: Path) -> list[tuple[Path, Path]]:
        import rasterio
        from rasterio._err import CPLE_BaseError
        from rasterio.errors import RasterioError
        from rasterio.shutil import copy

        vrt = self.folder / "result.vrt"
        vrt.write_text(mosaic(self.target, pieces, self.folder, self.digest), encoding="utf-8")
        form = self.target.form
        classes, side = form.kind == "classes", block_of(len(bands_of(form)), form.dtype)
        try:
            with quiet(), rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_NUM_THREADS="1", GDAL_PAM_ENABLED="NO"):
                copy(
                    str(vrt),
                    str(result),
                    driver="COG",
                    BLOCKSIZE=str(side),
                    COMPRESS="DEFLATE",
                    PREDICTOR="NO" if classes else "YES",
                    OVERVIEWS="IGNORE_EXISTING" if side == 512 else "NONE",  # of hundreds of bands they take minutes
                    RESAMPLING="MODE" if classes else "AVERAGE",
                    BIGTIFF="IF_SAFER",
                )
                check(result)
        except SystemError as error:  # where GDAL fails and does not say of what
            raise OSError("GDAL cannot write all of it; is the disk full?") from error
        except (RasterioError, CPLE_BaseError) as error:
            raise OSError(" ".join(str(error.__cause__ or error).split())) from error
        synced(result)
        beside = self.path.with_name(f"{self.path.name}.aux.xml")
        crs = self.target.place.crs if self._lost(result) else None
        if not classes and crs is None:
            beside.unlink(missing_ok=True)  # of a map that is replaced
            return [(result, self.path)]
        words = result.with_name(f"{result.name}.aux.xml")
        words.write_text(categories(form.names if classes else (), crs), encoding="utf-8")
        return [(words, beside), (result, self.path)]

    def _lost(self, result: Path) -> bool:
        """Whether the file cannot hold the reference system (a turned pole, say): GeoTIFF has no word for some."""
        import rasterio

        with quiet(), rasterio.open(result, driver="GTiff") as file:
            return bool(file.crs != self.target.place.crs)

    def digest_there(self) -> str | None:
        import rasterio

        with quiet(), rasterio.open(self.path, driver="GTiff") as file:
            found: str | None = file.tags().get(IDENTITY)
            return found


def block_of(bands: int, dtype: str) -> int:
    """The side of a block: 512, or less where a pixel holds many numbers.

    >>> block_of(1, "uint8"), block_of(64, "float32"), block_of(1280, "float32")
    (512, 256, 128)
    """
    each = bands * {"uint8": 1, "int8": 1, "uint16": 2}.get(dtype, 4)
    return next((side for side in (512, 256) if side * side * each <= BLOCK_BYTES), 128)


def _sixteens(length: int) -> int:
    return -(-length // 16) * 16


def mosaic(target: Target, pieces: Sequence[Piece], folder: Path, digest: str) -> str:
    """GDAL's VRT over all units, with all that the file is to say of itself."""
    place, form = target.place, target.form
    lines = [f'<VRTDataset rasterXSize="{place.width}" rasterYSize="{place.height}">']
    if place.crs is not None:
        lines.append(f"<SRS>{escape(place.crs.to_wkt())}</SRS>")
    a, b, c, d, e, f = map(float, place.transform)
    if (a, b, c, d, e, f) != (1, 0, 0, 0, 1, 0):
        lines.append(f"<GeoTransform>{', '.join(map(repr, (c, a, b, f, d, e)))}</GeoTransform>")
    lines += ["<Metadata>", *(_item(key, text) for key, text in tags_of(target, digest).items()), "</Metadata>"]
    nodata, scales = nodata_of(form), scales_of(form)
    for number, name in enumerate(bands_of(form), 1):
        lines.append(f'<VRTRasterBand dataType="{GDAL_TYPES[form.dtype]}" band="{number}">')
        lines.append(f"<Description>{escape(_clean(name))}</Description><NoDataValue>{nodata}</NoDataValue>")
        if scales:
            lines.append(f"<Offset>0</Offset><Scale>{scales[number - 1]!r}</Scale>")
        if form.kind == "classes":
            lines += ["<ColorInterp>Palette</ColorInterp>", _palette(form.colours)]
        lines += [_source(piece, number, folder, form.dtype) for piece in pieces]
        lines.append("</VRTRasterBand>")
    return "\n".join([*lines, "</VRTDataset>"])


def tags_of(target: Target, digest: str) -> dict[str, str]:
    """What was asked for, and what every file of ours says: its classes and their colours, and of what it is made."""
    form = target.form
    own = {IDENTITY: digest, "SATDIFUSER_OUTPUT": form.kind, "AREA_OR_POINT": "Area"}
    if form.kind in ("classes", "probabilities", "logits"):
        own |= {CLASSES: json.dumps(form.names, ensure_ascii=False), COLOURS: json.dumps(form.colours)}
    return {**target.tags, **own}


def _item(key: str, text: str) -> str:
    return f"<MDI key={quoteattr(key)}>{escape(_clean(text))}</MDI>"


def _palette(colours: Sequence[str]) -> str:
    shades = [tuple(int(colour.lstrip("#")[at : at + 2], 16) for at in (0, 2, 4)) for colour in colours]
    entries = "".join(f'<Entry c1="{red}" c2="{green}" c3="{blue}" c4="255"/>' for red, green, blue in shades)
    return f"<ColorTable>{entries}</ColorTable>"


def _source(piece: Piece, band: int, folder: Path, dtype: str) -> str:
    name = escape(piece.path.relative_to(folder).as_posix())
    size = f'xSize="{piece.width}" ySize="{piece.height}"'
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="1" shared="1">{name}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand>"
        f'<SourceProperties RasterXSize="{piece.width}" RasterYSize="{piece.height}" DataType="{GDAL_TYPES[dtype]}"'
        f'/><SrcRect xOff="0" yOff="0" {size}/>'
        f'<DstRect xOff="{piece.columns.start}" yOff="{piece.rows.start}" {size}/></SimpleSource>'
    )


def categories(names: Sequence[str], crs: Any = None) -> str:
    """GDAL's file of what stands beside a raster: the names of classes, which QGIS and gdalinfo show."""
    lines = ["<PAMDataset>", *([f" <SRS>{escape(crs.to_wkt())}</SRS>"] if crs is not None else [])]
    if names:
        lines += [' <PAMRasterBand band="1">', "  <CategoryNames>"]
        lines += [f"    <Category>{escape(_clean(name))}</Category>" for name in names]
        lines += ["  </CategoryNames>", " </PAMRasterBand>"]
    return "\n".join([*lines, "</PAMDataset>", ""])


def _clean(text: str) -> str:
    """What XML can hold."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", " ", text)


def check(path: Path) -> None:
    """Decode the last block of the image and of each overview: GDAL does not always say what a full disk cut off."""
    import rasterio

    with rasterio.open(path, driver="GTiff") as file:
        levels: list[int | None] = [None, *range(len(file.overviews(1)))]
    for level in levels:
        options: dict[str, Any] = {} if level is None else {"overview_level": level}
        with rasterio.open(path, driver="GTiff", **options) as file:
            file.read(window=((file.height - 1, file.height), (file.width - 1, file.width)))


def synced(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
