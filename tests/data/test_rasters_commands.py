"""A whole path on files of one's own: masks beside images, tiles, one file a band; and real ones, if there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from PIL import Image
from rasterio.transform import from_origin

from satdifuser.cli import main
from satdifuser.data.readers.rasters.reader import Rasters
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore

REAL = os.environ.get("SATDIFUSER_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="set SATDIFUSER_TEST_DATA to the folder of real data")
QUICK = ["fusion.projection_dim=16", "trainer=quick", "trainer.max_steps=2", "trainer.batch_size=2"]
SMALL = ["encoder.taps=[mid_block]", "encoder.timesteps=[21]"]


def tiff(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    shape: Any = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    place: Any = {"transform": from_origin(600000, 5200000, 10, 10), "crs": "EPSG:32632"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as file:
        file.write(pixels)


def made(root: Path, side: int = 32) -> None:
    """Masks beside images, in folders of splits."""
    rng = np.random.default_rng()
    for part, count in (("train", 4), ("val", 2), ("test", 2)):
        for number in range(count):
            mask = np.repeat(rng.integers(0, 2, (side, 1)), side, 1).astype(np.uint8) * 255
            tiff(
                root / part / "images" / f"{part}{number}.tif",
                (rng.integers(1, 3000, (3, side, side))).astype(np.uint16),
            )
            (root / part / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(root / part / "masks" / f"{part}{number}.png")


DATA = ["data=rasters", "data.images=*/images/{id}.tif", "data.masks=*/masks/{id}.png", "data.split_by=folder"]
DATA += ["data.sensor=SENTINEL2:B04/B03/B02", "data.classes={0: field, 255: cloud}"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["data.size=32"], ["data.size=16", "data.tile={size: 16, stride: 16}"]])
def test_masks_beside_images_are_extracted_learned_from_and_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "mine")
    data = [*DATA, "data.root=mine", *words]
    assert main(["extract", *data, *SMALL, "store.path=f.zarr"]) == 0
    store = FeatureStore(tmp_path / "f.zarr")
    tiles = 4 if len(words) > 1 else 1
    counts = {"train": 4 * tiles, "val": 2 * tiles, "test": 2 * tiles}
    assert {split: len(store.split(split)) for split in store.splits} == counts
    assert store.split("train").labels.classes == ("field", "cloud")
    opened = Rasters(
        "mine",
        "train",
        images="*/images/{id}.tif",
        masks="*/masks/{id}.png",
        split_by="folder",
        sensor="SENTINEL2:B04/B03/B02",
        classes={0: "field", 255: "cloud"},
        **({"size": 32} if tiles == 1 else {"size": 16, "tile": 16}),
    )
    batch = store.split("train").batch(range(4))
    assert batch["id"] == opened.names[:4]
    assert (batch["mask"] == opened.read_labels(range(4))["mask"]).all()
    task = ["task=segmentation", *QUICK]
    assert main(["train", *data, *task, *SMALL, "features=f.zarr", "run=stored"]) == 0
    assert main(["train", *data, *task, *SMALL, "run=live"]) == 0
    assert main(["eval", "run=live"]) == 0
    assert main(["eval", "run=stored"]) == 0
    assert json.loads((tmp_path / "stored" / "result.json").read_text())["steps"] == 2


@pytest.mark.slow
def test_one_file_a_band_and_a_table_run_from_a_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng()
    rows = ["name,kind"]
    for number in range(8):
        for band in ("red", "green", "nir"):
            tiff(
                tmp_path / "mine" / band / f"{band}_p{number}.TIF", rng.integers(1, 3000, (1, 32, 32)).astype(np.uint16)
            )
        rows.append(f"p{number},{'wood' if number % 2 else 'lake'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_text(
        """defaults: [rasters, _self_]
root: mine
images:
  red: red/red_{id}.TIF
  green: green/green_{id}.TIF
  nir: nir/nir_{id}.TIF
sensor: LANDSAT8:red/green/nir
size: 32
table: {path: labels.csv, key: name, label: kind}
split_by: {by: hash, val: 0.25, test: 0.25}
"""
    )
    data = ["--config-dir", "own", "data=mine", "encoder.prepare.bands=[nir,red,green]"]
    assert main(["train", *data, *SMALL, *QUICK, "task=classification", "run=run"]) == 0
    assert main(["eval", "--config-dir", "own", "run=run"]) == 0


@pytest.mark.slow
def test_a_mask_of_another_size_stops_an_extraction_or_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "mine")
    Image.fromarray(np.zeros((32, 35), np.uint8)).save(tmp_path / "mine" / "train" / "masks" / "train1.png")
    words = ["extract", *DATA, "data.root=mine", "data.size=32", *SMALL, "store.path=f.zarr"]
    assert main([*words, "on_error=stop"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "train1.png is a mask of 32 x 35 px, but its image" in line
    assert main([*words, "on_error=skip", "store.overwrite=true"]) == 0
    skipped: Any = zarr.open_group(tmp_path / "f.zarr", mode="r").attrs["skipped"]
    assert [sample["id"] for sample in skipped] == ["train1"]
    assert main([*words, "on_error=stop", "store.overwrite=true", "data.exclude=[train1]"]) == 0


@real
def test_eurosat_in_13_bands_has_each_band_where_it_belongs() -> None:
    root = Path(str(REAL)) / "real" / "eurosat-ms"
    order = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"]
    data = Rasters(str(root), "all", images="{class}/*.tif", sensor="SENTINEL2", bands=order, size=64)
    assert (len(data), len(data.labels.classes)) == (140, 10)
    for sample in data:
        with rasterio.open(root / sample["id"]) as file:
            wanted = file.read().astype(float) / 10000
            assert data.bounds(sample["id"]) == pytest.approx(tuple(file.bounds))
        for place, name in enumerate(data.sensor.names):
            np.testing.assert_allclose(sample["image"][place].numpy(), wanted[order.index(name)], rtol=1e-6)
        assert data.labels.classes[int(sample["label"])] == sample["id"].partition("/")[0]


@real
def test_the_amazon_is_read_but_for_the_mask_of_another_size() -> None:
    root = Path(str(REAL)) / "real" / "amazon"
    words: dict[str, Any] = {"images": "*/images/{id}.tiff", "masks": "*/masks/{id}.png", "sensor": "SENTINEL2_RGB"}
    words |= {"size": 512, "classes": {1: "forest", 2: "other"}, "split_by": "folder"}
    words |= {"scaling": {"numbers": "8bit", "white": 0.275}}
    refused = []
    data = Rasters(str(root), "train", **words)
    for place, name in enumerate(data.names):
        try:
            sample = data[place]
        except UserError as error:
            refused.append((name, str(error)))
            continue
        with rasterio.open(root / "training" / "images" / f"{name}.tiff") as file:
            np.testing.assert_allclose(sample["image"].numpy(), file.read() * (0.275 / 255), rtol=1e-6)
        mask = np.asarray(Image.open(root / "training" / "masks" / f"{name}.png"))
        assert (sample["mask"].numpy() == mask - 1).all()
    assert [name for name, _ in refused] == ["Amazon_181.tiff_34"]
    assert "is a mask of 512 x 515 px" in refused[0][1]
    assert len(Rasters(str(root), "train", **words, exclude=["Amazon_181.tiff_34"])) == 29
    assert len(Rasters(str(root), "val", **words)) == 15


@real
def test_clouds_have_one_file_a_band_and_blank_patches_can_be_left_out() -> None:
    root = Path(str(REAL)) / "real" / "38-cloud"
    bands = ("red", "green", "blue", "nir")
    words: dict[str, Any] = {"images": {b: f"train_{b}/{b}_{{id}}.TIF" for b in bands}, "masks": "train_gt/gt_{id}.TIF"}
    words |= {"sensor": "LANDSAT8:red/green/blue/nir", "size": 384, "classes": {0: "clear", 255: "cloud"}}
    words |= {"scaling": {"numbers": "dn", "unit": 50000}, "nodata": 0}
    data, blank = Rasters(str(root), "all", **words), []
    for sample in data:
        wanted = []
        for band in bands:
            with rasterio.open(root / f"train_{band}" / f"{band}_{sample['id']}.TIF") as file:
                wanted.append(file.read(1) / 50000)
        np.testing.assert_allclose(sample["image"].numpy(), np.stack(wanted), rtol=1e-6)
        with rasterio.open(root / "train_gt" / f"gt_{sample['id']}.TIF") as file:
            assert (sample["mask"].numpy() == (file.read(1) == 255)).all()
        blank += [] if np.any(wanted) else [sample["id"]]
    assert (len(data), len(blank)) == (12, 3)
    kept = Rasters(str(root), "all", **words, skip_blank=1.0)
    assert sorted([*kept.names, *blank]) == data.names


@real
@pytest.mark.parametrize("edge", ["drop", "shift", "pad"])
def test_tiles_of_real_scenes_are_rasterios_windows(edge: str) -> None:
    root = Path(str(REAL)) / "real" / "scenes"
    tile = {"size": 100, "stride": 80, "edge": edge}
    data = Rasters(str(root), "all", images="sentinel2_13bands.tif", sensor="SENTINEL2", size=100, tile=tile)
    with rasterio.open(root / "sentinel2_13bands.tif") as file:
        for sample, name in zip(data, data.names, strict=True):
            row, column = map(int, name.partition("#")[2].split(","))
            window: Any = ((row, min(row + 100, file.height)), (column, min(column + 100, file.width)))
            wanted = file.read(window=window) / 10000
            found = sample["image"].numpy()
            np.testing.assert_allclose(found[:, : wanted.shape[1], : wanted.shape[2]], wanted, rtol=1e-6)
            assert not found[:, wanted.shape[1] :].any()
            assert not found[:, :, wanted.shape[2] :].any()
    assert len(data) == {"drop": 9, "shift": 16, "pad": 16}[edge]
