"""Maps as COGs: what rasterio reads of them, and how the file is laid out by our own reading of it."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from satdifuser.errors import UserError
from satdifuser.scenes.out import open_output
from satdifuser.scenes.out.base import Form
from satdifuser.scenes.out.forms import encode
from tests.scenes.out.conftest import CLASSES, TURNED

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
PLACES = ["north up", "turned", "south up", "degrees", "flipped", "none"]


def somewhere(kind, draw):
    """A random transform, six numbers with all their digits, and a reference system."""
    size, far = draw.uniform(0.1, 60, 2), draw.uniform(-1e6, 1e7, 2)
    if kind == "degrees":
        size, far = size * 1e-5, draw.uniform(-80, 80, 2)
    turn = draw.uniform(-5, 5, 2) if kind == "turned" else (0.0, 0.0)
    across, down = (-1 if kind == "flipped" else 1), (1 if kind == "south up" else -1)
    transform = (across * size[0], turn[0], far[0], turn[1], down * size[1], far[1])
    crs = {"none": None, "degrees": CRS.from_epsg(4326), "turned": CRS.from_epsg(3035)}.get(kind, CRS.from_epsg(32760))
    return tuple(map(float, transform)) if kind != "none" else (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), crs


@pytest.mark.parametrize("kind", PLACES)
def test_georeferences_survive_to_the_last_digit(tmp_path, target, write, kind):
    draw = np.random.default_rng()
    for number in range(3):
        transform, crs = somewhere(kind, draw)
        path = tmp_path / f"{number}.tif"
        write(path, target(transform=transform, crs=crs))
        with rasterio.open(path) as file:
            assert tuple(file.transform)[:6] == transform
            assert file.crs == crs


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo (of GDAL's own tools) is not installed")
@pytest.mark.parametrize("kind", ["north up", "turned", "none"])
def test_gdals_own_tool_says_the_same(tmp_path, target, write, kind):
    transform, crs = somewhere(kind, np.random.default_rng())
    write(tmp_path / "map.tif", target(transform=transform, crs=crs))
    told = json.loads(
        subprocess.run(["gdalinfo", "-json", tmp_path / "map.tif"], capture_output=True, check=True).stdout
    )
    a, b, c, d, e, f = transform
    given = told.get("geoTransform", [0.0, 1.0, 0.0, 0.0, 0.0, 1.0])  # it prints one digit less than a number has
    np.testing.assert_allclose(given, [c, a, b, f, d, e], rtol=1e-15)
    assert ("coordinateSystem" in told) == (crs is not None)
    assert told["metadata"]["IMAGE_STRUCTURE"]["LAYOUT"] == "COG"
    (band,) = told["bands"]
    assert band["noDataValue"] == 255
    assert band["colorTable"]["entries"][:3] == [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]]


@pytest.mark.parametrize("form", [CLASSES, Form("values", "float32", ("value",))], ids=lambda form: form.kind)
def test_a_reference_system_that_no_geotiff_can_hold_stands_beside_it(tmp_path, target, write, form):
    pole = CRS.from_string("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +R=6371229 +no_defs")
    write(tmp_path / "map.tif", target(form, crs=pole))
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.crs == pole
        assert tuple(file.transform)[:6] == TURNED


@pytest.mark.parametrize(
    "form",
    [
        Form("classes", "uint8", ("open water", "b&<", "ö"), ("#ff0000", "#00ff00", "#0000ff")),
        Form("classes", "uint16", tuple(map(str, range(300))), ("#123456",) * 300),
        Form("probabilities", "uint8", ("a", "b", "c"), ("#ff0000", "#00ff00", "#0000ff")),
        Form("probabilities", "float32", ("a", "b"), ("#ff0000", "#00ff00")),
        Form("values", "float32", ("value",)),
        Form("embedding", "int8", ("tap@1:0", "tap@1:1"), scales=(0.0123456789, 3e-9)),
    ],
    ids=lambda form: f"{form.kind}-{form.dtype}",
)
def test_all_that_is_written_is_read_back(tmp_path, target, write, form):
    values, valid = write(tmp_path / "map.tif", target(form))
    wanted, nodata = encode(form, values, valid)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.driver == "GTiff"
        np.testing.assert_array_equal(file.read(), wanted)
        np.testing.assert_equal(file.nodata, nodata)
        assert file.dtypes == (form.dtype,) * len(wanted)
        assert file.descriptions == (("class",) if form.kind == "classes" else form.names)
        scales = form.scales or ((1 / 254,) * 3 if form.dtype == "uint8" and len(wanted) > 1 else (1.0,) * len(wanted))
        assert file.scales == scales
        assert file.tags()["SATDIFUSER_RUN"] == "abc"
        assert file.tags()["SATDIFUSER_OUTPUT"] == form.kind
        assert json.loads(file.tags().get("SATDIFUSER_CLASSES", "null")) == (list(form.names) if form.colours else None)
        if form.kind == "classes":
            table = file.colormap(1)
            for number, colour in enumerate(form.colours):
                assert "#" + bytes(table[number][:3]).hex() == colour
            tree = ElementTree.parse(tmp_path / "map.tif.aux.xml")
            assert [one.text for one in tree.iter("Category")] == list(form.names)


def directories(content):
    """Of a TIFF that is no BigTIFF: the offset of each directory, and its tags (number to offset of values)."""
    assert content[:4] == b"II*\0"
    (offset,) = struct.unpack_from("<I", content, 4)
    found = []
    while offset:
        (count,) = struct.unpack_from("<H", content, offset)
        tags = {}
        for number in range(count):
            tag, kind, length, value = struct.unpack_from("<HHII", content, offset + 2 + 12 * number)
            size = {3: 2, 4: 4, 16: 8}.get(kind)
            if size is None:
                continue
            start = value if size * length > 4 else offset + 2 + 12 * number + 8
            tags[tag] = struct.unpack_from(f"<{length}{'HIQ'[(2, 4, 8).index(size)]}", content, start)
        found.append((offset, tags))
        (offset,) = struct.unpack_from("<I", content, offset + 2 + 12 * count)
    return found


def test_the_file_is_laid_out_as_a_cog(tmp_path, target, write):
    write(tmp_path / "map.tif", target(height=1100, width=1300), share=0.9, rows=512, columns=1024)
    content = (tmp_path / "map.tif").read_bytes()
    levels = directories(content)
    sizes = [(tags[256][0], tags[257][0]) for _, tags in levels]
    assert sizes == [(1300, 1100), (650, 550), (325, 275)]
    assert all(tags[322] == tags[323] == (512,) for _, tags in levels)
    data = [[at for at in tags[324] if at] for _, tags in levels]
    assert max(offset for offset, _ in levels) < min(map(min, data))  # all that says where, before what is there
    assert min(data[0]) > max(data[1]) > min(data[1]) > max(data[2])  # the smallest picture first
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1) == [2, 4]


def test_overviews_of_classes_are_what_most_pixels_are(tmp_path, target, numbers):
    form = Form("classes", "uint8", ("a", "b", "c"), ("#ff0000", "#00ff00", "#0000ff"))
    wanted = target(form, height=1030, width=1030)
    values = np.zeros((3, 1030, 1030), np.float32)
    values[0] = 1.0
    values[2, ::2, ::2] = 5.0  # a quarter of the pixels
    output = open_output(str(tmp_path / "map.tif"), wanted)
    output.begin(False)
    from satdifuser.scenes.units import units_of

    for unit in units_of(1030, 1030, rows=1030, columns=1030):
        output.write(unit, values, np.ones((1030, 1030), bool))
    output.finish()
    with rasterio.open(tmp_path / "map.tif", overview_level=0) as file:
        assert np.unique(file.read(1)).tolist() == [0]


def test_vectors_of_very_many_channels_have_small_blocks_and_no_overviews(tmp_path, target, write):
    form = Form("embedding", "float32", tuple(f"tap:{n}" for n in range(600)))
    values, valid = write(tmp_path / "a.tif", target(form, height=40, width=140), rows=128)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.block_shapes[0] == (128, 128)
        assert file.overviews(1) == []
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(file.read(), np.where(valid, values, np.float32(np.nan)))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (700, 1)])
def test_maps_of_one_pixel_and_without_any_data_are_maps(tmp_path, target, write, height, width):
    values, valid = write(tmp_path / "map.tif", target(height=height, width=width))
    write(tmp_path / "none.tif", target(height=height, width=width), share=0.0)
    with rasterio.open(tmp_path / "map.tif") as file, rasterio.open(tmp_path / "none.tif") as none:
        np.testing.assert_array_equal(file.read(1), np.where(valid, values.argmax(0), 255))
        assert file.crs == none.crs
        assert (none.read() == 255).all()


def test_what_no_file_can_hold_is_one_line(tmp_path, target):
    with pytest.raises(UserError, match=r"holds no float16: set dtype=float32"):
        open_output(str(tmp_path / "a.tif"), target(Form("embedding", "float16", ("a",))))
    with pytest.raises(UserError, match=r"ends in \.tif, \.tiff, \.zarr, \.parquet"):
        open_output(str(tmp_path / "a.png"), target())
    with pytest.raises(UserError, match=r"answer for each pixel"):
        open_output(str(tmp_path / "a.parquet"), target(Form("classes", "uint8", ("a",), dense=True)))
