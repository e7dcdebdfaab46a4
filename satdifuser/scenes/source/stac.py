"""STAC: an item's assets as the rasters of a scene, and which items a file has."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from satdifuser.data.files.names import shown
from satdifuser.data.files.opened import Own
from satdifuser.errors import UserError
from satdifuser.scenes.source.layer import Layer, Layout
from satdifuser.scenes.source.raster import DRIVERS, is_remote, suffix_of

JSON, PARQUET = (".json", ".geojson"), (".parquet", ".pq", ".geoparquet")
NOT_DATA = {
    "thumbnail",
    "overview",
    "visual",
    "metadata",
    "preview",
    "cloud",
    "data-mask",
    "rendered_preview",
    "tilejson",
}
LARGEST_ITEM = 2**22  # bytes of a file that is looked into
OFFSET_SINCE = 4.0  # processing baseline of Sentinel-2
Item = dict[str, Any]


def is_catalogue(words: str) -> bool:
    """Whether the words are a file that may have items, or an item in one (`items.json#id`)."""
    return suffix_of(words.partition("#")[0]) in (*JSON, *PARQUET)


def is_item(path: Path) -> bool:
    """Whether a JSON file is an item some of whose assets are on this disk."""
    if path.stat().st_size > LARGEST_ITEM:
        return False
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        assets = whole["assets"].values() if whole["type"] == "Feature" and "stac_version" in whole else ()
        hrefs = [_href(str(asset["href"]), path) for asset in assets]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return False
    return any(not is_remote(href) and Path(href).is_file() for href in hrefs)


def items_in(path: Path, seen: frozenset[Path] = frozenset()) -> Iterator[tuple[str, str]]:
    """Id and words of each item of a file: of an item, a collection of items, a catalogue, or a table of them."""
    if path.suffix.lower() in PARQUET:
        yield from ((name, f"{path}#{name}") for name in _rows(path))
        return
    whole = _json(path)
    kind = whole.get("type")
    if kind == "Feature" and "assets" in whole:
        yield str(whole.get("id") or path.stem), str(path)
    elif kind == "FeatureCollection":
        for place, item in enumerate(whole.get("features") or []):
            if not isinstance(item, dict) or not isinstance(item.get("assets"), dict) or not item.get("id"):
                raise UserError(f"{shown(path)}: its item {place + 1} has no id or no assets: it is no STAC item")
            yield str(item["id"]), f"{path}#{item['id']}"
    elif kind in ("Collection", "Catalog"):
        yield from _linked(path, whole, seen | {path.resolve()})
    else:
        raise UserError(f"{shown(path)} is no STAC item, collection of items or catalogue (its type is {kind!r})")


def _linked(path: Path, whole: Mapping[str, Any], seen: frozenset[Path]) -> Iterator[tuple[str, str]]:
    links = [link for link in whole.get("links") or [] if isinstance(link, dict)]
    found = False
    for link in links:
        if link.get("rel") not in ("item", "child") or not isinstance(link.get("href"), str):
            continue
        found = True
        href = _href(link["href"], path)
        if is_remote(href):
            raise UserError(
                f"{shown(path)} refers to {shown(href)}: download the items first (a catalogue is read here)"
            )
        if not Path(href).is_file():
            raise UserError(f"{shown(href)} is not there, which {shown(path)} refers to")
        if Path(href).resolve() not in seen:
            yield from items_in(Path(href), seen)
    if not found:
        raise UserError(f"{shown(path)} is a STAC {str(whole.get('type')).lower()} without links to items")


def item_layout(words: str) -> Layout:
    """The data of an item: assets with bands, by their names, with the scale and no data that the item gives."""
    path, _, name = words.partition("#")
    item = _item(Path(path).expanduser(), name)
    assets, properties = item.get("assets"), item.get("properties") or {}
    if not isinstance(assets, dict):
        raise UserError(f"{shown(words)} has no assets: it is no STAC item")
    data = {key: asset for key, asset in assets.items() if isinstance(asset, dict) and _is_data(key, asset, assets)}
    if not data:
        raise UserError(
            f"{shown(words)} has no assets that are rasters: it has {', '.join(map(shown, assets)) or 'none'}"
        )
    described = any(_bands(asset) for asset in data.values())
    shifted = properties.get("earthsearch:boa_offset_applied") is True
    layers = [_layer(key, asset, Path(path), described, shifted) for key, asset in data.items()]
    return Layout("STAC item", tuple(layers), "the item", _doubt(properties, layers, shifted), files=(path,))


def _layer(key: str, asset: Mapping[str, Any], path: Path, described: bool, shifted: bool) -> Layer:
    bands = _bands(asset)
    rasters = [each for each in asset.get("raster:bands") or [] if isinstance(each, dict)]
    href = _href(str(asset.get("href")), path)
    blanks: list[float] = []
    owns: list[Own | None] = []
    for place in range(max(len(bands), len(rasters), 1)):
        band = bands[place] if place < len(bands) else {}
        raster = rasters[place] if place < len(rasters) else {}
        said = {**asset, **band, **raster}
        scale, offset = (said.get(f"raster:{name}", raster.get(name)) for name in ("scale", "offset"))
        given = isinstance(scale, int | float) or isinstance(offset, int | float)
        worth = float(1 if scale is None else scale), 0.0 if shifted else float(offset or 0)
        owns.append(worth if given and worth != (1.0, 0.0) else None)
        try:
            blanks += [float(said["nodata"])] if said.get("nodata") is not None else []
        except (TypeError, ValueError):
            continue
    names = None
    if bands:
        names = tuple(_words(band, key if len(bands) == 1 else None) for band in bands)
    elif described:
        names = ((key,),) * len(owns)
    gsd = next((each["gsd"] for each in (asset, *bands) if isinstance(each.get("gsd"), int | float)), None)
    size = next((each.get("spatial_resolution") for each in rasters), None) if gsd is None else gsd
    own = tuple(owns) if any(owns) else ()
    return Layer(
        href, names, key, own, tuple(dict.fromkeys(blanks)), gsd=size if isinstance(size, int | float) else None
    )


def _words(band: Mapping[str, Any], key: str | None) -> tuple[str, ...]:
    found = (band.get("name"), band.get("eo:common_name"), band.get("common_name"), key)
    return tuple(dict.fromkeys(str(word) for word in found if word))


def _bands(asset: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = asset.get("bands") or asset.get("eo:bands") or []
    return [band for band in found if isinstance(band, dict)] if isinstance(found, list) else []


def _is_data(key: str, asset: Mapping[str, Any], assets: Mapping[str, Any]) -> bool:
    roles = {str(role).lower() for role in asset.get("roles") or []}
    if roles & NOT_DATA or key.lower() in NOT_DATA or suffix_of(str(asset.get("href"))) not in DRIVERS:
        return False
    if key.endswith("-jp2") and key.removesuffix("-jp2") in assets:
        return False  # the same as a JPEG 2000
    all_roles = [each.get("roles") or [] for each in assets.values() if isinstance(each, dict)]
    return "data" in roles or not any("data" in each for each in all_roles)


def _doubt(properties: Mapping[str, Any], layers: list[Layer], shifted: bool) -> str | None:
    """Sentinel-2 since 2022 has an offset that some items do not give."""
    baseline = properties.get("s2:processing_baseline") or properties.get("processing:version")
    number = str(baseline or "").strip().lstrip("Nn")
    try:
        since = float(number) if "." in number else float(number) / 100
    except ValueError:
        return None
    is_it = "s2:processing_baseline" in properties or "sentinel-2" in str(properties.get("constellation", "")).lower()
    if not is_it or since < OFFSET_SINCE or shifted or any(layer.own for layer in layers):
        return None
    return f"is Sentinel-2 of baseline {number}, whose numbers have an offset of -1000 unless somebody took it away"


def _href(href: str, path: Path) -> str:
    if href.startswith("file://"):
        return unquote(href.removeprefix("file://"))
    if is_remote(href) or Path(href).is_absolute():
        return href
    return str(path.expanduser().parent / href)


def _item(path: Path, name: str) -> Item:
    if path.suffix.lower() in PARQUET:
        return _row(path, name)
    whole = _json(path)
    if not name:
        return whole
    found = [item for item in whole.get("features") or [] if isinstance(item, dict) and str(item.get("id")) == name]
    if len(found) != 1:
        raise UserError(f"{shown(path)} has {len(found)} items {shown(name)}: an item needs an id of its own")
    return found[0]


def _json(path: Path) -> Item:
    if not path.is_file():
        raise UserError(f"{shown(path)} is not there: give the path of a STAC item")
    found = path.stat()
    return _parsed(str(path), found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=4)
def _parsed(path: str, time: int, size: int) -> Item:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown(path)} is no JSON ({' '.join(str(error).split())}): give a STAC item") from None
    if not isinstance(found, dict):
        raise UserError(f"{shown(path)} is no STAC item: it holds a {type(found).__name__}")
    return found


def _rows(path: Path) -> list[str]:
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        names = set(file.schema_arrow.names)
        ids = file.read(columns=["id"])["id"].to_pylist() if "id" in names else []
    except Exception as error:  # of its own kinds
        raise UserError(f"{shown(path)} cannot be read as Parquet ({' '.join(str(error).split())})") from None
    if not {"id", "assets"} <= names:
        raise UserError(f"{shown(path)} is no table of STAC items: it has no column id or assets (stac-geoparquet)")
    return [str(name) for name in ids]


def _row(path: Path, name: str) -> Item:
    from pyarrow import parquet

    table = parquet.read_table(path, filters=[("id", "=", name)])
    if table.num_rows != 1:
        raise UserError(f"{shown(path)} has {table.num_rows} items {shown(name)}: an item needs an id of its own")
    table = table.drop_columns([column for column in ("geometry", "bbox") if column in table.column_names])
    row: Item = _without_none(table.to_pylist()[0])
    known = ("id", "assets", "links", "type", "stac_version", "stac_extensions", "collection")
    return {**row, "properties": {**{k: v for k, v in row.items() if k not in known}, **row.get("properties", {})}}


def _without_none(value: Any) -> Any:
    """A table has every key in each row: those of other rows are empty."""
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value
