"""What a layout says of a scene before any raster is opened: which files it has, and what their bands are called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from satdifuser.data.bands import Sensor
from satdifuser.data.files.opened import Own

Names = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Layer:
    """A raster of a scene.

    `names` are what its bands are called, for each one or several words; None: the file says it itself, and if it has
    one band, by `stem` too. `own` is the scale and the offset that the product says, for each band; `nodata` what it
    says is no data. `named`: whether the user has named this very file, which a VRT has to be.
    """

    path: str
    names: Names | None = None
    stem: str | None = None
    own: tuple[Own | None, ...] = ()
    nodata: tuple[float, ...] = ()
    named: bool = False
    inner: str | None = None
    """Of a Zarr group: the array."""
    gsd: float | None = None
    """Of bands of one name the finest is taken."""


@dataclass(frozen=True)
class Layout:
    """All layers of a scene, and what to say of it. `kind` is for people; `product` names what scales come from."""

    kind: str
    layers: tuple[Layer, ...]
    product: str | None = None
    doubt: str | None = None
    """Why the product's own scale is not known, where it matters: an error unless the scale is given."""
    sensor: Sensor | None = None
    """Whose bands have these names, where the product says it."""
    files: tuple[str, ...] = ()
    """Further files that were read: metadata."""
    about: dict[str, Any] = field(default_factory=dict)
