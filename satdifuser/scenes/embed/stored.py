"""Embedding rasters as they lie on disk: which features they hold, and how they are read as a scene."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from satdifuser.bank import BankError, BankSpec
from satdifuser.data.bands import embedding
from satdifuser.data.files.names import shown
from satdifuser.data.files.quiet import quiet
from satdifuser.data.scaling import Scaling
from satdifuser.errors import UserError
from satdifuser.scenes.scene import Found, Reading

ATTRIBUTE, TAG = "bank_spec", "SATDIFUSER_BANK_SPEC"


def bank_spec_of(found: Found) -> BankSpec | None:
    """Which features an embedding raster has, as `satdifuser embed` has written them there; None of any other scene."""
    path = Path(found.words).expanduser()
    if path.suffix.lower() in (".tif", ".tiff") and path.is_file():
        text = _tag(path)
    elif (path / "zarr.json").is_file():
        text = _attribute(path)
    else:
        return None
    if text is None:
        return None
    try:
        return BankSpec.from_dict(json.loads(text) if isinstance(text, str) else text)
    except (BankError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{shown(found.words)} has a damaged {ATTRIBUTE} ({type(error).__name__}): embed its scene again"
        ) from None


def reading_of_vectors(spec: BankSpec) -> Reading:
    """How such a raster is read: its bands are the numbers of its vectors, in order, and NaN is no data."""
    sensor = embedding(sum(tap.channels for tap in spec.taps))
    return Reading(sensor, sensor.names, Scaling(), bands=sensor.names, nan="nodata")


def _tag(path: Path) -> str | None:
    import rasterio
    from rasterio.errors import RasterioIOError

    with quiet():
        try:
            with rasterio.open(path.absolute(), driver="GTiff") as file:
                text: str | None = file.tags().get(TAG)
        except RasterioIOError:  # whoever opens it as a scene says what is wrong
            return None
    return text


def _attribute(path: Path) -> Any:
    try:
        values = json.loads((path / "zarr.json").read_text())
        return values["attributes"].get(ATTRIBUTE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
