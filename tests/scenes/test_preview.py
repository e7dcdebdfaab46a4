"""Pictures of scenes and maps: what is painted, what the legend says, and that any scene has one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from rasterio.crs import CRS

from satdifuser.data.bands import find_sensor
from satdifuser.data.files.opened import Place
from satdifuser.scenes.looks import BLANK, components, look, painted, rgb, scene_picture
from satdifuser.scenes.out import open_output
from satdifuser.scenes.out.base import Form, Target
from satdifuser.scenes.preview import _metres, legend_of, write_preview
from satdifuser.scenes.scene import Pixels, Scene
from satdifuser.scenes.units import units_of

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
NORTH, UTM = (10.0, 0.0, 5e5, 0.0, -10.0, 5e6), CRS.from_epsg(32632)
SHADES = ("#ff0000", "#00ff00", "#0000ff")


class Memory(Scene):
    name, identity = "memory", {}

    def __init__(self, height, width, transform=NORTH, crs=UTM, filled=range(13), blank=False):
        self.place, self.sensor = Place(transform, crs, height, width), find_sensor("SENTINEL2")
        self.image = np.zeros((13, height, width), np.float32)
        self.image[list(filled)] = np.random.default_rng(0).random((len(filled), height, width))
        self.blank = np.full((height, width), blank)

    def read(self, rows, columns):
        return Pixels(self.image[:, rows, columns], self.blank[rows, columns])


@pytest.fixture
def made(tmp_path):
    """Write a map of these numbers, and give its path."""

    def make(scene, form, values, valid, suffix=".tif", place=None):
        path = tmp_path / f"map{suffix}"
        output = open_output(str(path), Target(place or scene.place, form, {}, {"of": form.kind}))
        output.begin(True)
        for unit in units_of(*values.shape[1:], rows=512, columns=512):
            output.write(unit, values[:, unit.rows, unit.columns], valid[unit.rows, unit.columns])
        output.finish()
        return path

    return make


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_classes_are_painted_in_their_colours_and_the_legend_says_which_occur(made, suffix):
    scene = Memory(20, 30)
    truth = np.random.default_rng().integers(0, 2, (20, 30))  # the third never occurs
    valid = np.random.default_rng().random((20, 30)) < 0.8
    form = Form("classes", "uint8", ("sea", "x" * 60, "never"), SHADES)
    looked = look(made(scene, form, np.eye(3, dtype=np.float32)[truth].transpose(2, 0, 1), valid, suffix), 700)
    shades = np.array([rgb(shade) for shade in SHADES])
    np.testing.assert_array_equal(painted(looked), np.where(valid[..., None], shades[truth], BLANK))
    entries = legend_of(looked)
    assert [colour for colour, _ in entries] == [(255, 0, 0), (0, 255, 0), BLANK]
    assert entries[0][1] == f"sea  {100 * (truth[valid] == 0).mean():.1f} %"
    assert len(entries[1][1]) < 40
    assert entries[2][1] == "no data"


def test_many_classes_are_cut_to_the_most_frequent(made):
    scene = Memory(40, 40)
    values = np.random.default_rng().normal(size=(300, 40, 40)).astype(np.float32)
    values[7, :20] = 50
    form = Form("classes", "uint16", tuple(f"c{n}" for n in range(300)), ("#102030",) * 300)
    entries = legend_of(look(made(scene, form, values, np.ones((40, 40), bool)), 700))
    assert len(entries) == 25
    assert any(words.startswith("c7  ") for _, words in entries)
    assert entries[-1][1].startswith("and ")


def test_a_large_scene_is_averaged_as_a_slow_loop_does_and_true_colour_needs_its_bands():
    scene = Memory(50, 33)
    picture, said = scene_picture(scene, 10)
    assert (picture.shape, said) == ((10, 7, 3), "true colour")
    means = np.array(
        [[scene.image[3, r : r + 5, c : c + 5].mean() for c in range(0, 33, 5)] for r in range(0, 50, 5)], np.float64
    )
    low, high = np.percentile(means, (2, 98))
    wanted = np.clip((means - low) / (high - low), 0, 1) * 255
    assert np.abs(picture[..., 0] - wanted).max() <= 1
    assert scene_picture(Memory(9, 9, filled=(1, 7)), 10)[1] == "band B02"
    assert scene_picture(Memory(9, 9, filled=(1, 7, 8, 9)), 10)[1] == "bands B02, B08, B8A"


def test_components_are_those_of_a_decomposition():
    numbers = np.random.default_rng().normal(size=(6, 8, 9)) * np.arange(1, 7)[:, None, None]
    numbers[:, 0, 0] = np.nan
    points = numbers.reshape(6, -1).T[1:]
    _, _, axes = np.linalg.svd(points - points.mean(0), full_matrices=False)
    wanted = (points - points.mean(0)) @ axes[:3].T
    found = components(numbers).reshape(3, -1).T
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(np.abs(found[1:]), np.abs(wanted), atol=1e-8)
    assert (components(np.ones((2, 3, 3)))[2] == 0).all()


def test_the_ground_is_measured_in_metres():
    assert _metres(Place(NORTH, UTM, 5, 5)) == 10
    feet = Place((10.0, 0.0, 0.0, 0.0, -10.0, 0.0), CRS.from_epsg(2263), 5, 5)
    assert math.isclose(_metres(feet), 3.048006096)
    degrees = Place((0.001, 0.0, 11.0, 0.0, -0.001, 60.0), CRS.from_epsg(4326), 0, 0)
    assert math.isclose(_metres(degrees), 111.195 * math.cos(math.radians(60)), rel_tol=1e-4)
    assert _metres(Place(NORTH, None, 5, 5)) is None


@pytest.mark.parametrize(
    ("height", "width", "how"),
    [
        (1, 1, {}),
        (300, 1, {"crs": None, "transform": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)}),
        (20, 30, {"blank": True}),
        (20, 30, {"transform": (9.0, 3.0, 5e5, 3.0, -9.0, 5e6)}),
        (20, 30, {"transform": (1e-4, 0.0, 11.0, 0.0, -1e-4, 48.0), "crs": CRS.from_epsg(4326)}),
    ],
)
@pytest.mark.parametrize("kind", ["classes", "values", "embedding"])
def test_any_scene_has_a_picture(tmp_path, made, height, width, how, kind):
    scene = Memory(height, width, **how)
    form = {
        "classes": Form("classes", "uint8", ("a", "b"), SHADES[:2]),
        "values": Form("values", "float32", ("value",)),
        "embedding": Form("embedding", "int8", ("a", "b"), scales=(0.01, 0.02)),
    }[kind]
    values = np.random.default_rng(0).normal(size=(len(form.names), height, width)).astype(np.float32)
    path = made(scene, form, values, ~scene.blank)
    out = tmp_path / "map.png"
    assert write_preview(scene, str(path), str(out), "title") == str(out)
    first = out.read_bytes()
    with Image.open(out) as picture:
        assert max(picture.size) <= 1720
    write_preview(scene, str(path), str(out), "title")
    assert out.read_bytes() == first


@pytest.mark.parametrize("suffix", [".tif", ".parquet"])
def test_tiles_lie_where_they_are_on_the_scene(tmp_path, made, suffix):
    pytest.importorskip("pyarrow")
    scene = Memory(100, 100)
    place = Place((640.0, 0.0, 5e5, 0.0, -640.0, 5e6), UTM, 2, 2)  # 64 px: the second reaches beyond the scene
    values = np.zeros((2, 2, 2), np.float32)
    values[1, :, 1] = 1.0
    form = Form("classes", "uint8", ("a", "b"), ("#ff0000", "#0000ff"))
    path = made(scene, form, values, np.ones((2, 2), bool), suffix, place)
    write_preview(scene, str(path), str(tmp_path / "a.png"))
    with Image.open(tmp_path / "a.png") as picture:
        row = np.asarray(picture.convert("RGB"))[300]
    red, blue = ((row == shade).all(1).sum() for shade in ((255, 0, 0), (0, 0, 255)))
    assert abs(red / (red + blue) - 0.64) < 0.03
