"""Products as ESA and USGS pack them: the finest file of each band, and numbers by the product's own metadata."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from rasterio.transform import Affine

from satdifuser.data.bands import find_sensor
from satdifuser.data.scaling import Scaling
from satdifuser.data.sensors import LANDSAT8_SR
from satdifuser.errors import UserError
from satdifuser.scenes.find import find_scenes
from satdifuser.scenes.scene import Reading
from satdifuser.scenes.source import open_scene

NAME = "S2B_MSIL2A_20230105T101319_N{}_R022_T32TQM_20230105T120000.SAFE"
SIZES = {10: ("B02", "B03", "B04", "B08"), 20: ("B05", "B06", "B07", "B8A", "B11", "B12"), 60: ("B01", "B09")}
LANDSAT = "LC08_L2SP_021039_20200101_20200113_02_T1"


@pytest.fixture
def safe(raster):
    """A product of level 2A, or 1C; gives the pixels of each band in its finest file."""

    def make(root, baseline="0509", offset: int | None = -1000, level="2A", metadata=True):
        folder = root / NAME.format(baseline).replace("2A", level)
        images, found = folder / "GRANULE/L2A_T32TQM_A030/IMG_DATA", {}
        for size, bands in SIZES.items():
            for name in (*bands, *(("B10",) if level == "1C" and size == 60 else ())):
                for coarser in [size] if level == "1C" else [s for s in SIZES if s >= size]:
                    inner = f"R{coarser}m/T32TQM_{name}_{coarser}m.jp2" if level == "2A" else f"T32TQM_{name}.jp2"
                    shape, place = (120 // coarser * 2,) * 2, Affine(coarser, 0, 3e5, 0, -coarser, 5e6)
                    lossless = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
                    pixels = raster(images / inner, 1, shape, transform=place, low=0, **lossless)
                    found.setdefault(name, pixels[0])
        raster(images / "R10m/T32TQM_TCI_10m.tif", 3, dtype="uint8", high=200)
        raster(images / "R20m/T32TQM_SCL_20m.tif", 1, dtype="uint8", high=9)
        if metadata:
            kind, unit = ("BOA", "BOA_QUANTIFICATION_VALUE") if level == "2A" else ("RADIO", "QUANTIFICATION_VALUE")
            rows = (
                ""
                if offset is None
                else "".join(f'<{kind}_ADD_OFFSET band_id="{n}">{offset}</{kind}_ADD_OFFSET>\n' for n in range(13))
            )
            (folder / f"MTD_MSIL{level}.xml").write_text(
                f'<n1:Product><General_Info><{unit} unit="none">10000</{unit}>\n{rows}</General_Info></n1:Product>'
            )
        return folder, found

    return make


@pytest.mark.parametrize("level", ["2A", "1C"])
@pytest.mark.parametrize("offset", [-1000, None], ids=["offset", "before 04.00"])
def test_a_safe_gives_each_band_at_its_finest_with_the_offset_of_its_metadata(
    safe, opened, whole, tmp_path, level, offset, said
):
    folder, pixels = safe(tmp_path, offset=offset, level=level)
    names = [*SIZES[10], *(("B10",) if level == "1C" else ())]
    scene = opened(folder, sensor="SENTINEL2:" + "/".join(names))
    assert (scene.place.height, scene.place.transform[0]) == (24, 10)
    found = whole(scene)
    for place, name in enumerate(SIZES[10]):
        wanted = np.where(pixels[name] == 0, 0, (pixels[name].astype(float) + (offset or 0)) / 10_000)
        assert np.abs(found.image[place] - wanted).max() < 1e-6
    assert any(f"MTD_MSIL{level}.xml says" in line for line in said)


def test_bands_of_a_safe_are_resampled_from_their_finest(safe, opened, whole, tmp_path):
    folder, pixels = safe(tmp_path)
    found = whole(opened(folder, sensor="SENTINEL2:B04/B05/B01", resampling="nearest"))
    for place, name in enumerate(("B04", "B05", "B01")):
        fine = np.kron(pixels[name], np.ones((24 // len(pixels[name]),) * 2))
        assert np.abs(found.image[place] - np.where(fine == 0, 0, (fine - 1000) / 1e4)).max() < 1e-6


def test_a_run_of_another_scale_is_refused_unless_the_scale_is_given_for_the_scene(safe, opened, whole, tmp_path):
    folder, pixels = safe(tmp_path)
    sensor = find_sensor("SENTINEL2:B04")
    (scene,) = find_scenes(str(folder))
    with pytest.raises(UserError, match=r"B04 is number \* 0.0001 - 0.1, but the run reads number / 10000"):
        open_scene(scene, Reading(sensor, ("B04",), Scaling("dn", unit=10_000)))
    open_scene(scene, Reading(sensor, ("B04",), Scaling("dn", unit=10_000, offset=-1000))).close()
    found = whole(opened(folder, sensor="SENTINEL2:B04", scaling="dn"))
    assert np.allclose(found.image[0], pixels["B04"] / 1e4, atol=1e-7)


def test_a_safe_without_metadata_is_read_where_its_baseline_has_no_offset(safe, opened, whole, tmp_path):
    folder, pixels = safe(tmp_path / "old", "0301", metadata=False)
    found = whole(opened(folder, sensor="SENTINEL2:B04"))
    assert np.allclose(found.image[0], pixels["B04"] / 1e4, atol=1e-7)
    folder, _ = safe(tmp_path / "new", "0509", metadata=False)
    with pytest.raises(UserError, match=r"has no MTD_MSIL2A.xml.*offset of -1000: set reading.scaling"):
        opened(folder, sensor="SENTINEL2:B04")
    opened(folder, sensor="SENTINEL2:B04", scaling={"numbers": "dn", "unit": 10000, "offset": -1000})


def test_a_band_that_a_level_lacks_is_one_line(safe, opened, tmp_path):
    folder, _ = safe(tmp_path)
    with pytest.raises(UserError, match=r"has no band B10 \(cirrus\)"):
        opened(folder, sensor="SENTINEL2")


def test_the_metadata_file_of_a_product_is_the_product(safe, opened, whole, tmp_path):
    folder, _ = safe(tmp_path)
    one = whole(opened(folder, sensor="SENTINEL2:B04"))
    other = whole(opened(folder / "MTD_MSIL2A.xml", sensor="SENTINEL2:B04"))
    assert np.array_equal(one.image, other.image)


@pytest.fixture
def landsat(raster):
    """A folder of surface reflectance and temperature; gives pixels by band."""

    def make(folder, metadata=None):
        found = {}
        for n in range(1, 8):
            found[f"B{n}"] = raster(folder / f"{LANDSAT}_SR_B{n}.TIF", low=0, high=60_000)[0]
        found["B10"] = raster(folder / f"{LANDSAT}_ST_B10.TIF", low=0, high=60_000)[0]
        raster(folder / f"{LANDSAT}_QA_PIXEL.TIF")
        raster(folder / f"{LANDSAT}_SR_QA_AEROSOL.TIF", dtype="uint8", high=200)
        sr, level1 = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", "LEVEL1_RADIOMETRIC_RESCALING"
        groups = {
            sr: {f"REFLECTANCE_{k}_BAND_{n}": v for n in range(1, 8) for k, v in (("MULT", 3e-05), ("ADD", -0.25))},
            level1: {f"REFLECTANCE_{k}_BAND_{n}": v for n in range(1, 8) for k, v in (("MULT", 9.0), ("ADD", 9.0))},
        }
        if metadata == "txt":
            lines = [
                line
                for group, own in groups.items()
                for line in (
                    f"  GROUP = {group}",
                    *(f"    {k} = {v}" for k, v in own.items()),
                    f"  END_GROUP = {group}",
                )
            ]
            (folder / f"{LANDSAT}_MTL.txt").write_text("\n".join(lines))
        elif metadata == "json":
            (folder / f"{LANDSAT}_MTL.json").write_text(json.dumps({"LANDSAT_METADATA_FILE": groups}))
        return found

    return make


@pytest.mark.parametrize("metadata", ["txt", "json", None])
def test_landsat_is_reflectance_by_its_metadata_or_the_handbook(landsat, opened, whole, tmp_path, metadata):
    pixels = landsat(tmp_path / "scene", metadata)
    scale, offset = (2.75e-05, -0.2) if metadata is None else (3e-05, -0.25)
    found = whole(opened(tmp_path / "scene", sensor="LANDSAT8_SR"))
    for place, name in enumerate(LANDSAT8_SR.names):
        wanted = np.where(pixels[name] == 0, 0, pixels[name] * scale + offset)
        assert np.abs(found.image[place] - wanted).max() < 1e-6
    thermal = whole(opened(tmp_path / "scene", ["lwir11"], sensor="LANDSAT8")).image[9]
    assert np.abs(thermal - np.where(pixels["B10"] == 0, 0, pixels["B10"] * 0.00341802 + 149)).max() < 1e-4


def test_landsat_of_level_1_is_reflectance_by_the_height_of_the_sun(raster, opened, whole, tmp_path):
    name = "LC09_L1TP_021039_20220101_20220113_02_T1"
    pixels = raster(tmp_path / f"a/{name}_B4.TIF")[0]
    raster(tmp_path / f"a/{name}_B5.TIF")
    with pytest.raises(UserError, match=r"has no MTL file"):
        opened(tmp_path / "a", sensor="LANDSAT9:B4")
    (tmp_path / f"a/{name}_MTL.txt").write_text(
        "GROUP = IMAGE_ATTRIBUTES\nSUN_ELEVATION = 35.5\nEND_GROUP = IMAGE_ATTRIBUTES\n"
        "GROUP = LEVEL1_RADIOMETRIC_RESCALING\n"
        "REFLECTANCE_MULT_BAND_4 = 2.0000E-05\nREFLECTANCE_ADD_BAND_4 = -0.100000\n"
    )
    found = whole(opened(tmp_path / "a", sensor="LANDSAT9:B4")).image[0]
    assert np.abs(found - (pixels * 2e-05 - 0.1) / math.sin(math.radians(35.5))).max() < 1e-6


@pytest.mark.parametrize("names", [("red", "nir"), ("T32_B4_30m", "T32_B5_30m"), ("x.SR_B4", "x.SR_B5")])
def test_a_folder_of_one_file_a_band_goes_by_the_names_of_its_files(raster, opened, whole, tmp_path, names):
    red, nir = (raster(tmp_path / f"a/{name}.tif")[0] for name in names)
    found = whole(opened(tmp_path / "a", sensor="LANDSAT8:red/nir")).image
    assert np.allclose(found, np.stack([red, nir]) / 1e4, atol=1e-7)


def test_files_that_a_user_names_have_the_bands_that_he_says(raster, opened, whole, tmp_path):
    red = raster(tmp_path / "one.tif")[0]
    two = raster(tmp_path / "two.tif", 3)
    bands = {"B04": "one.tif", "nir": "two.tif:3"}
    found = whole(opened(tmp_path, sensor="SENTINEL2:B04/B08", bands=bands)).image
    assert np.allclose(found, np.stack([red, two[2]]) / 1e4, atol=1e-7)
    with pytest.raises(UserError, match=r"ones.tif is not there, which reading.bands names; did you mean one.tif"):
        opened(tmp_path, sensor="SENTINEL2:B04", bands={"B04": "ones.tif"})
    with pytest.raises(UserError, match=r"reading\.bands has B99, which is no band"):
        opened(tmp_path, sensor="SENTINEL2:B04", bands={"B99": "one.tif"})
    with pytest.raises(UserError, match=r"two\.tif has 3 bands, not the 4"):
        opened(tmp_path, sensor="SENTINEL2:B04", bands={"B04": "two.tif:4"})


def test_a_band_of_landsat_that_only_has_the_name_of_sentinels_is_refused(landsat, opened, whole, tmp_path):
    pixels = landsat(tmp_path / "scene")
    red = whole(opened(tmp_path / "scene", sensor="SENTINEL2:B04")).image[0]  # which is red of both
    assert np.abs(red - np.where(pixels["B4"] == 0, 0, pixels["B4"] * 2.75e-05 - 0.2)).max() < 1e-6
    with pytest.raises(UserError, match=r"B5 is nir of Landsat-8 OLI \(864.7 nm\), not rededge1"):
        opened(tmp_path / "scene", sensor="SENTINEL2:B05")


def test_landsat_in_real_time_has_the_scale_of_its_product_too(raster, opened, whole, tmp_path):
    name = "LC08_L2SP_021039_20220101_20220113_02_RT"
    pixels = raster(tmp_path / f"a/{name}_SR_B4.TIF")[0]
    raster(tmp_path / f"a/{name}_SR_B5.TIF")
    assert np.abs(whole(opened(tmp_path / "a", sensor="LANDSAT8:B4")).image[0] - (pixels * 2.75e-05 - 0.2)).max() < 1e-6
