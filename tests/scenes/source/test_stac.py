"""STAC items, their collections, catalogues and tables: local assets by their bands, with the scale that they say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from satdifuser.errors import UserError
from satdifuser.scenes.find import find_scenes
from satdifuser.scenes.scene import Found
from satdifuser.scenes.source import open_scene, reading_of
from satdifuser.settings.scenes import ReadingSettings

TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


def asset(href, name, common, **more):
    return {"href": href, "type": TIFF, "roles": ["data"], "eo:bands": [{"name": name, "common_name": common}], **more}


def item(name, assets, **properties):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": {"type": "Point", "coordinates": [9.0, 45.0]},
        "properties": {"datetime": "2023-01-05T00:00:00Z", **properties},
        "assets": assets,
        "links": [],
    }


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def search(raster, tmp_path):
    """An item as Earth Search has them, with what is no band beside its bands."""
    pixels = {name: raster(tmp_path / f"{name}.tif")[0] for name in ("red", "nir")}
    raster(tmp_path / "visual.tif", 3, dtype="uint8", high=200)
    raster(tmp_path / "scl.tif", dtype="uint8", high=9)
    scaled = {"raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]}
    assets = {
        "red": asset("./red.tif", "B04", "red", **scaled),
        "nir": asset("nir.tif", "B08", "nir", **scaled),
        "red-jp2": asset("red.jp2", "B04", "red", **scaled),
        "visual": {**asset("visual.tif", "B04", "red"), "roles": ["visual"]},
        "scl": {"href": "scl.tif", "type": TIFF, "roles": ["data"]},
        "thumbnail": {"href": "t.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
        "metadata": {"href": "m.xml", "type": "application/xml"},
    }
    return assets, pixels


@pytest.mark.parametrize("applied", [True, False])
def test_an_items_assets_are_bands_with_its_scale_but_no_offset_that_was_applied(
    search, opened, whole, tmp_path, applied
):
    assets, pixels = search
    path = write(tmp_path / "item.json", item("a", assets, **{"earthsearch:boa_offset_applied": applied}))
    found = whole(opened(path, sensor="SENTINEL2:B04/B08")).image
    offset = 0 if applied else -0.1
    assert np.abs(found - np.stack([pixels["red"], pixels["nir"]]) * 1e-4 - offset).max() < 1e-6


def test_the_words_of_version_1_1_are_the_same(search, opened, whole, tmp_path):
    assets, pixels = search
    for name in ("red", "nir"):
        old = assets[name]
        band = {"name": old["eo:bands"][0]["name"], "eo:common_name": name, "raster:scale": 2e-4, "raster:offset": -0.3}
        assets[name] = {"href": old["href"], "type": TIFF, "roles": ["data"], "bands": [band], "nodata": 7}
    path = write(tmp_path / "item.json", item("a", assets))
    found = whole(opened(path, sensor="SENTINEL2:B04/B08")).image
    both = np.stack([pixels["red"], pixels["nir"]])
    assert np.abs(found - np.where(both == 7, 0, both * 2e-4 - 0.3)).max() < 1e-6


def test_sentinel_2_whose_item_says_nothing_of_an_offset_is_refused_since_baseline_4(search, opened, whole, tmp_path):
    assets, pixels = search
    for each in assets.values():
        each.pop("raster:bands", None)
    new = write(tmp_path / "new.json", item("a", assets, **{"s2:processing_baseline": "05.10"}))
    with pytest.raises(UserError, match=r"Sentinel-2 of baseline 05.10.*set reading.scaling"):
        opened(new, sensor="SENTINEL2:B04")
    scaling = {"numbers": "dn", "unit": 10_000, "offset": -1000}
    found = whole(opened(new, sensor="SENTINEL2:B04", scaling=scaling)).image
    assert np.abs(found[0] - (pixels["red"].astype(float) - 1000) / 1e4).max() < 1e-6
    old = write(tmp_path / "old.json", item("a", assets, **{"s2:processing_baseline": "02.12"}))
    assert np.allclose(whole(opened(old, sensor="SENTINEL2:B04")).image[0], pixels["red"] / 1e4, atol=1e-7)


def test_collections_of_items_catalogues_and_tables_have_the_same_scenes(raster, whole, tmp_path):
    pixels, items = {}, []
    for name in ("one", "two"):
        pixels[name] = raster(tmp_path / f"{name}.tif")[0]
        items.append(item(name, {"B4": asset(str(tmp_path / f"{name}.tif"), "B4", "red")}))
    several = write(tmp_path / "items.json", {"type": "FeatureCollection", "features": items})
    for each in items:
        write(tmp_path / f"c/{each['id']}/item.json", each)
    links = [
        {"rel": "self", "href": "https://a/b.json"},
        *({"rel": "item", "href": f"./{n}/item.json"} for n in pixels),
    ]
    inner = write(tmp_path / "c/collection.json", {"type": "Collection", "id": "c", "links": links})
    root = {"type": "Catalog", "id": "r", "links": [{"rel": "child", "href": "./c/collection.json"}]}
    catalogue = write(tmp_path / "catalog.json", root)
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{**each, "geometry": b"", "properties": None} for each in items]
    rows[1]["assets"] = {"B5": rows[1]["assets"]["B4"]}  # each row has the keys of all
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "items.parquet")
    for words in (several, inner, catalogue, tmp_path / "items.parquet"):
        found = find_scenes(str(words))
        assert [scene.name for scene in found] == ["one", "two"]
        for scene in found:
            again = open_scene(scene, reading_of(None, ReadingSettings(sensor="LANDSAT8:red"), None))
            assert np.allclose(whole(again).image[0], pixels[scene.name] / 1e4, atol=1e-7)
            again.close()
    assert find_scenes(f"{several}#two") == [Found("two", f"{several}#two")]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"type": "Topology"}, "no STAC item"),
        ([], "holds a list"),
        ({"type": "FeatureCollection", "features": [{"type": "Feature"}]}, "no id or no assets"),
        ({"type": "FeatureCollection", "features": [item("a", {}), item("a", {})]}, "several items a"),
        ({"type": "Catalog", "links": []}, "without links"),
        ({"type": "Catalog", "links": [{"rel": "item", "href": "lost.json"}]}, "lost.json is not there"),
        ({"type": "Catalog", "links": [{"rel": "item", "href": "https://a/b.json"}]}, "download the items"),
    ],
)
def test_what_is_no_item_is_one_line(tmp_path, value, words):
    path = write(tmp_path / "a.json", value)
    with pytest.raises(UserError, match=words) as caught:
        find_scenes(str(path))
    assert "\n" not in str(caught.value)


def test_a_folder_with_an_item_is_read_by_it_and_not_by_the_names_of_its_files(search, opened, whole, tmp_path):
    assets, pixels = search
    write(tmp_path / "item.json", item("mine", assets))
    write(tmp_path / "other.json", {"type": "Feature"})
    scene = opened(tmp_path, sensor="SENTINEL2:B04")
    assert scene.name == "mine"
    assert np.abs(whole(scene).image[0] - (pixels["red"] * 1e-4 - 0.1)).max() < 1e-6
    with pytest.raises(UserError, match="download it"):
        find_scenes("https://host/item.json")


def test_assets_that_are_not_there_or_no_rasters_are_one_line(opened, tmp_path):
    path = write(tmp_path / "a.json", item("a", {"B4": asset("lost.tif", "B4", "red")}))
    with pytest.raises(UserError, match=r"lost\.tif is not there"):
        opened(path, sensor="LANDSAT8:red")
    path = write(tmp_path / "b.json", item("b", {"metadata": {"href": "a.xml"}}))
    with pytest.raises(UserError, match="no assets that are rasters"):
        opened(path, sensor="LANDSAT8:red")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        find_scenes(str(tmp_path / "c.json"))
