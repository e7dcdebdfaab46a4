"""Which scenes a user means, under names that can be files."""

from __future__ import annotations

import pytest

from satdifuser.data.bands import SENTINEL2
from satdifuser.errors import UserError
from satdifuser.scenes.find import find_scenes
from satdifuser.scenes.source import reading_of
from satdifuser.settings.part import DataPart
from satdifuser.settings.scenes import ReadingSettings


def test_a_list_a_pattern_and_a_folder_of_scenes_are_these_in_order(raster, tmp_path):
    for name in ("b", "a"):
        raster(tmp_path / f"{name}.tif", 3)
        raster(tmp_path / f"deep/{name}.tif", 3)
    assert [s.name for s in find_scenes([str(tmp_path / "b.tif"), str(tmp_path / "a.tif")])] == ["b", "a"]
    assert [s.name for s in find_scenes(str(tmp_path / "*.tif"))] == ["a", "b"]
    assert [s.name for s in find_scenes(str(tmp_path / "deep"))] == ["a", "b"]
    found = find_scenes(str(tmp_path / "**/*.tif"))
    assert len({scene.name.lower() for scene in found}) == len(found) == 4
    assert {scene.words for scene in found} == {str(path) for path in tmp_path.rglob("*.tif")}


def test_a_folder_is_one_scene_where_its_files_differ_by_their_band(raster, tmp_path):
    for name in ("B04", "B08"):
        raster(tmp_path / f"one/scene_{name}.tif")
        for scene in ("north", "south"):
            raster(tmp_path / f"two/{scene}/{scene}_{name}_10m.tif")
    assert [(s.name, s.words) for s in find_scenes(str(tmp_path / "one"))] == [("one", str(tmp_path / "one"))]
    assert [s.name for s in find_scenes(str(tmp_path / "two"))] == ["north", "south"]


def test_pictures_beside_rasters_are_no_scenes(raster, tmp_path):
    raster(tmp_path / "a.tif", 3)
    raster(tmp_path / "a-preview.png", 3, dtype="uint8", high=200, driver="PNG")
    assert [s.name for s in find_scenes(str(tmp_path))] == ["a"]


def test_names_can_be_files_and_differ(raster, tmp_path):
    for path in ("x/a.tif", "y/a.tif", "z/A.tif"):
        raster(tmp_path / path)
    same = [str(tmp_path / "x/a.tif")] * 2
    assert [s.name for s in find_scenes(same)] == ["x_a", "x_a-2"]
    names = [s.name for s in find_scenes([str(tmp_path / p) for p in ("x/a.tif", "y/a.tif", "z/A.tif")])]
    assert names == ["x_a", "y_a", "z_A"]
    assert find_scenes("s3://bucket/my scene.tif?sig=a/b")[0].name == "my_scene"


@pytest.mark.parametrize("words", ["lost.tif", "*.lost", "empty", "lost.json"])
def test_what_is_not_there_is_one_line(tmp_path, words):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"is not there|no file is called|has no scene") as caught:
        find_scenes(str(tmp_path / words))
    assert "\n" not in str(caught.value)


def test_two_scenes_in_one_folder_are_said_when_it_is_read_as_one(raster, opened, tmp_path):
    for scene in ("north", "south"):
        for name in ("B04", "B08"):
            raster(tmp_path / f"{scene}_{name}.tif")
    assert len(find_scenes(str(tmp_path))) == 4
    (found,) = find_scenes(str(tmp_path), {"B04": "north_B04.tif"})
    assert found.words == str(tmp_path)


def test_a_scene_is_read_as_the_training_images_were_unless_the_command_says_otherwise():
    rasters = {"_target_": "satdifuser.data.readers.rasters.reader.Rasters", "root": "x", "images": "*.tif", "size": 32}
    said = {"sensor": "SENTINEL2:B04/B08", "scaling": "dn", "nodata": 5, "nan": "nodata", "bands": ["B08", "B04"]}
    data = DataPart(
        {**rasters, **said, "splits": {"train": {"split": "train"}}}, "data", "satdifuser.data.base.MapStyle"
    )
    reading = reading_of(data, ReadingSettings(), ["nir"])
    assert (reading.sensor.names, reading.needed, reading.told) == (("B04", "B08"), ("B08",), False)
    assert (reading.scaling.numbers, reading.nodata, reading.nan, reading.unnamed) == (
        "dn",
        (5,),
        "nodata",
        ("B08", "B04"),
    )
    given = ReadingSettings(sensor="SENTINEL2", scaling={"numbers": "dn", "unit": 5000}, nodata=[0, 1], nan="error")
    reading = reading_of(data, given, None)
    assert reading.sensor is SENTINEL2
    assert (reading.needed, reading.told, reading.unnamed) == (SENTINEL2.names, True, ())
    assert (reading.scaling.unit, reading.nodata, reading.nan) == (5000, (0, 1), "error")
    with pytest.raises(UserError, match=r"set reading\.sensor"):
        reading_of(None, ReadingSettings(), None)
    with pytest.raises(UserError, match="has no band B99"):
        reading_of(data, ReadingSettings(), ["B99"])
