"""Embeddings of scenes: against the encoder's features of each window, blended slowly in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from satdifuser.bank import BankSpec
from satdifuser.cli import main
from satdifuser.config import compose
from satdifuser.data.files.opened import Place
from satdifuser.errors import UserError
from satdifuser.scenes.embed.flow import embed
from satdifuser.scenes.embed.stored import bank_spec_of, reading_of_vectors
from satdifuser.scenes.scene import Found
from satdifuser.scenes.source import open_scene

TURNED = rasterio.Affine(9.7, 2.1, 399960.125, 1.9, -10.3, 5800020.4375)
RCF = ("encoder=rcf", "encoder.features=6", "encoder.stride=4", "data.size=16", "data.sensor=SENTINEL2:B02/B03/B04")


@pytest.fixture
def scene(tmp_path: Path) -> tuple[str, Any]:
    """A scene of reflectance with a corner of no data."""
    numbers = np.random.default_rng(7).integers(1, 3000, (3, 38, 29)).astype(np.uint16)
    numbers[:, :9, :14] = 0
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=38,
        width=29,
        count=3,
        dtype="uint16",
        crs="EPSG:32632",
        transform=TURNED,
        nodata=0,
    ) as file:
        file.write(numbers)
        for band, name in enumerate(("B02", "B03", "B04"), 1):
            file.set_band_description(band, name)
    return str(path), numbers


def settings_of(path: str, out: Path, *more: str) -> Any:
    return compose("embed", [*RCF, f"scene={path}", f"out={out}", *more])


def slowly(numbers: Any, settings: Any, *, size: int, margin: int, overlap: int, step: int) -> Any:
    """Each window by itself, mirrored at the edges by going back and forth; weighted sums in float64."""
    encoder = settings.encoder.build()
    image = numbers.astype(np.float32) / np.float32(10000)
    height, width = image.shape[1:]

    def back(index: int, length: int) -> int:
        if length == 1:
            return 0
        while not 0 <= index < length:
            index = -index if index < 0 else 2 * (length - 1) - index
        return index

    def weight(cell: int) -> float:
        at = min(cell, size // step - 1 - cell) - margin // step
        ramp = overlap // step
        return 0.0 if at < 0 else 1.0 if at >= ramp else float(np.sin(np.pi / 2 * (at + 0.5) / ramp) ** 2)

    rows, columns = -(-height // step), -(-width // step)
    channels = encoder.spec.taps[0].channels
    total, weights = np.zeros((channels, rows, columns)), np.zeros((rows, columns))
    stride = size - 2 * margin - overlap
    for top in range(-margin - 4 * stride, height + size, stride):
        for left in range(-margin - 4 * stride, width + size, stride):
            if top + size <= 0 or left + size <= 0:
                continue
            window = np.stack(
                [[image[:, back(top + r, height), back(left + c, width)] for c in range(size)] for r in range(size)]
            ).transpose(2, 0, 1)
            found = encoder(torch.from_numpy(np.ascontiguousarray(window))[None])[encoder.spec.taps[0]][0].double()
            for r in range(size // step):
                for c in range(size // step):
                    row, column, w = top // step + r, left // step + c, weight(r) * weight(c)
                    if 0 <= row < rows and 0 <= column < columns and w > 0:
                        total[:, row, column] += w * found[:, r, c].numpy()
                        weights[row, column] += w
    return total / weights


def read_back(path: Path) -> tuple[Any, Place]:
    """Vectors as a scene of them gives them, and where they lie."""
    found = Found("it", str(path))
    spec = bank_spec_of(found)
    assert spec is not None
    scene = open_scene(found, reading_of_vectors(spec))
    pixels = scene.read(slice(0, scene.place.height), slice(0, scene.place.width))
    scene.close()
    return pixels, scene.place


@pytest.mark.parametrize("form", ["e.zarr", "e.tif"])
def test_a_raster_is_the_features_of_windows_blended(scene: Any, tmp_path: Path, form: str) -> None:
    path, numbers = scene
    settings = settings_of(path, tmp_path / form, "dtype=float32", "window.margin=4", "window.overlap=4")
    done = embed(settings, Found("scene", path))
    assert done.finished
    found, place = read_back(tmp_path / form)
    expected = slowly(numbers, settings, size=16, margin=4, overlap=4, step=4)
    assert found.image.shape == expected.shape == (6, 10, 8)
    valid = ~found.blank
    np.testing.assert_allclose(found.image[:, valid], expected[:, valid], atol=1e-5)
    assert valid[3:].all()
    assert not valid[:2, :3].any()
    a, b, c, d, e, f = tuple(TURNED)[:6]
    assert place.transform == (4 * a, 4 * b, c, 4 * d, 4 * e, f)
    assert place.crs.to_epsg() == 32632


@pytest.mark.parametrize("form", ["e.zarr", "e.tif"])
def test_int8_is_within_half_a_step_but_where_it_is_clipped(scene: Any, tmp_path: Path, form: str, capsys: Any) -> None:
    path, _ = scene
    embed(settings_of(path, tmp_path / "exact.tif", "dtype=float32"), Found("scene", path))
    embed(settings_of(path, tmp_path / form, "dtype=int8"), Found("scene", path))
    assert "of the int8 numbers lie beyond" in capsys.readouterr().err
    exact, place = read_back(tmp_path / "exact.tif")
    small, other = read_back(tmp_path / form)
    assert place == other
    np.testing.assert_array_equal(exact.blank, small.blank)
    valid = ~exact.blank
    for channel in range(6):
        one, two = exact.image[channel][valid], small.image[channel][valid]
        step = np.unique(np.abs(np.diff(np.unique(two))))[0]
        inside = np.abs(one) <= 127.5 * step
        assert inside.mean() > 0.9
        assert np.abs(one - two)[inside].max() <= step * 0.5001
        np.testing.assert_allclose(two[~inside], np.sign(one[~inside]) * 127 * step, rtol=1e-5)


def test_the_features_of_a_raster_are_told_by_its_file(scene: Any, tmp_path: Path) -> None:
    path, _ = scene
    spec = settings_of(path, tmp_path / "x.zarr").encoder.build().spec
    for form in ("e.zarr", "e.tif"):
        embed(settings_of(path, tmp_path / form), Found("scene", path))
        assert bank_spec_of(Found("e", str(tmp_path / form))) == spec
    assert bank_spec_of(Found("scene", path)) is None
    embed(settings_of(path, tmp_path / "coarse.zarr", "stride=8"), Found("scene", path))
    assert bank_spec_of(Found("e", str(tmp_path / "coarse.zarr"))) is None  # averaged: no bank of that encoder


def test_xarray_opens_it_with_coordinates_and_reference_system(tmp_path: Path, scene: Any) -> None:
    xarray = pytest.importorskip("xarray")
    from rasterio.crs import CRS

    path, numbers = scene
    with rasterio.open(path, "r+") as file:
        file.transform = rasterio.Affine(10, 0, 399960, 0, -10, 5800020)
    assert main(["embed", *RCF, f"scene={path}", f"out={tmp_path / 'e.zarr'}"]) == 0
    found = xarray.open_zarr(tmp_path / "e.zarr")
    array = found["embedding"]
    assert array.dims == ("band", "y", "x")
    assert array.dtype == np.float16
    np.testing.assert_array_equal(found.x, 399960 + 40 * (np.arange(8) + 0.5))
    np.testing.assert_array_equal(found.y, 5800020 - 40 * (np.arange(10) + 0.5))
    assert CRS.from_wkt(found["spatial_ref"].attrs["crs_wkt"]).to_epsg() == 32632
    assert BankSpec.from_dict(found.attrs["bank_spec"]).encoder == "random-convolutions"
    assert numbers.shape[0] == 3


def test_tiles_are_rows_with_their_footprints_and_pooled_vectors(scene: Any, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    pytest.importorskip("pyarrow")
    path, numbers = scene
    settings = settings_of(path, tmp_path / "t.parquet", "dtype=float32", "pool=moments")
    embed(settings, Found("scene", path))
    table = geopandas.read_parquet(tmp_path / "t.parquet")
    assert table.crs.to_epsg() == 32632
    assert len(table) == 3 * 2  # of 38 x 29 px; none of them is all without data
    encoder = settings.encoder.build()
    row = table[(table["row"] == 1) & (table["column"] == 0)].iloc[0]
    window = torch.from_numpy(numbers[:, 16:32, :16].astype(np.float32) / np.float32(10000))[None]
    maps = encoder(window)[encoder.spec.taps[0]][0].double().numpy().reshape(6, -1)
    np.testing.assert_allclose(row["embedding"], [*maps.mean(1), *maps.std(1)], atol=1e-5)
    corners = {TURNED @ corner if hasattr(TURNED, "__matmul__") else TURNED * corner for corner in ((0, 16), (16, 32))}
    assert all(row.geometry.buffer(1e-6).contains(geopandas.points_from_xy([x], [y])[0]) for x, y in corners)
    assert json.dumps(settings.plain())


@pytest.mark.slow
def test_a_finetuned_encoder_embeds_as_it_was_trained(tmp_path: Path) -> None:
    data = ["data.size=16", *(f"data.splits.{split}.length=8" for split in ("train", "val", "test"))]
    words = [
        "encoder=unet",
        "fusion=mean",
        "decoder=single",
        "task=segmentation",
        "trainer=quick",
        "trainer.max_steps=3",
    ]
    rgb = ["data.sensor=SENTINEL2", f"run={tmp_path / 'run'}"]
    assert main(["train", *words, *data, *rgb]) == 0
    thirteen = tmp_path / "all.tif"
    with rasterio.open(
        thirteen,
        "w",
        driver="GTiff",
        height=20,
        width=20,
        count=13,
        dtype="float32",
        transform=TURNED,
        crs="EPSG:32632",
    ) as file:
        image = np.random.default_rng(1).random((13, 20, 20)).astype(np.float32) * 0.3
        file.write(image)
    out = tmp_path / "e.tif"
    flat = ["window.margin=0", "window.overlap=0", "select.taps=null"]
    assert main(["embed", f"run={tmp_path / 'run'}", f"scene={thirteen}", f"out={out}", *flat]) == 0
    from satdifuser.scenes.embed.source import embeds

    source = embeds(compose("embed", [f"run={tmp_path / 'run'}", f"scene={thirteen}", f"out={out}"]))
    assert source.weights
    bank = source.encoder(torch.from_numpy(image[None, :, :16, :16]))
    with rasterio.open(out) as file:
        found, tags = file.read(), file.tags()
    assert tags["SATDIFUSER_WEIGHTS"].endswith(f"+{source.weights}")
    side = max(tap.stride for tap in source.spec.taps)
    parts = [torch.nn.functional.avg_pool2d(maps, side // tap.stride) for tap, maps in bank.items()]
    expected = torch.cat(parts, 1)[0].detach().numpy()
    np.testing.assert_allclose(found[:, : 16 // side, : 16 // side], expected, atol=1e-4, rtol=1e-4)


def test_an_encoder_beside_a_run_that_has_another_is_refused(tmp_path: Path, scene: Any) -> None:
    small = [f"data.splits.{part}.length=4" for part in ("train", "val", "test")]
    words = ["encoder=colours", "fusion=mean", "task=classification", "trainer=quick", "trainer.max_steps=2"]
    assert main(["train", *words, *small, f"run={tmp_path / 'run'}"]) == 0
    settings = settings_of(scene[0], tmp_path / "e.tif", f"run={tmp_path / 'run'}")
    with pytest.raises(UserError, match=r"brings its own encoder \(.*Colour.*\), and encoder is .*: leave out one"):
        embed(settings, Found("scene", scene[0]))


@pytest.mark.parametrize("form", ["e.tif", "e.zarr", "t.parquet"])
def test_parts_of_a_scene_come_to_the_bytes_of_one_process(
    scene: Any, tmp_path: Path, form: str, monkeypatch: Any
) -> None:
    import satdifuser.scenes.stream as stream
    from satdifuser.scenes.units import units_of

    rows = 1 if form == "t.parquet" else 3
    monkeypatch.setattr(stream, "plan", lambda place, *_: units_of(place.height, place.width, rows=rows, columns=4))
    path, _ = scene
    kind = [] if form == "t.parquet" else ["dtype=int8"]
    for folder, parts in (("one", 1), ("three", 3)):
        (tmp_path / folder).mkdir()
        settings = settings_of(path, tmp_path / folder / form, *kind)
        done = [embed(settings, Found("scene", path), part=(part, parts)) for part in reversed(range(parts))]
        assert [one.finished for one in done] == [False] * (parts - 1) + [True]
        assert not list((tmp_path / folder).glob("*.partial"))

    def content(folder: str) -> dict[str, bytes]:
        top = tmp_path / folder
        return {str(file.relative_to(top)): file.read_bytes() for file in top.rglob("*") if file.is_file()}

    assert content("one") == content("three")
    again = embed(settings_of(path, tmp_path / "one" / form, *kind), Found("scene", path))
    assert again.finished
    assert again.computed == 0


@pytest.mark.parametrize(("height", "width"), [(30, 1), (1, 1), (5, 40)])
@pytest.mark.parametrize("blank", [False, True])
def test_scenes_of_any_size_with_or_without_data_are_embedded(
    tmp_path: Path, height: int, width: int, blank: bool
) -> None:
    numbers = np.random.default_rng().integers(1, 3000, (3, height, width)).astype(np.uint16) * (not blank)
    size: Any = {"height": height, "width": width, "count": 3, "dtype": "uint16", "nodata": 0}
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", crs="EPSG:32632", transform=TURNED, **size) as file:
        file.write(numbers)
    path = str(tmp_path / "s.tif")
    windows = ["window.margin=4", "window.overlap=4"]
    embed(settings_of(path, tmp_path / "small.tif", "dtype=int8", *windows), Found("s", path))
    settings = settings_of(path, tmp_path / "e.tif", "dtype=float32", *windows)
    embed(settings, Found("s", path))
    found, _ = read_back(tmp_path / "e.tif")
    small, _ = read_back(tmp_path / "small.tif")
    assert found.blank.shape == (-(-height // 4), -(-width // 4))
    assert found.blank.all() == small.blank.all() == blank
    if not blank:
        expected = slowly(numbers, settings, size=16, margin=4, overlap=4, step=4)
        np.testing.assert_allclose(found.image, expected, atol=1e-5)
        steps = np.abs(small.image).reshape(6, -1).max(1) / 100  # of 127: nothing is clipped in a scene of few windows
        assert (np.abs(small.image - expected).reshape(6, -1).max(1) <= steps).all()
