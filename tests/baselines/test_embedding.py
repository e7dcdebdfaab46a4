"""Vectors that somebody else has made, as an encoder; and what the numbers of their files are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from satdifuser.baselines.embedding import Embedding, VectorInput
from satdifuser.config import compose
from satdifuser.data.bands import find_sensor
from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.inputs import ImageInput
from satdifuser.data.scaling import Scaling
from satdifuser.errors import UserError

BAND = find_sensor("EMBEDDING:3").bands[0]


def build(channels: int = 5, **settings: Any) -> Embedding:
    prepare = VectorInput(sensor=f"EMBEDDING:{channels}", **settings.pop("prepare", {}))
    return Embedding(prepare=prepare, **{"image_size": 12, **settings})


def test_the_bank_is_the_image_bit_by_bit_and_nothing_is_clipped() -> None:
    encoder, images = build(), torch.randn(3, 5, 12, 12) * 100
    bank = encoder(images)
    assert list(bank) == [encoder.spec.taps[0]]
    assert torch.equal(bank[encoder.spec.taps[0]], images)


def test_a_stride_is_the_mean_of_so_many_pixels() -> None:
    encoder, images = build(stride=4), torch.randn(2, 5, 12, 12)
    expected = images.double().numpy().reshape(2, 5, 3, 4, 3, 4).mean((3, 5))
    np.testing.assert_allclose(encoder(images)[encoder.spec.taps[0]].numpy(), expected, atol=1e-6)


def test_a_stride_leaves_pixels_without_a_vector_out_of_the_mean() -> None:
    encoder, images = build(stride=4), torch.randn(2, 5, 12, 12)
    images[torch.rand(2, 1, 12, 12).expand(-1, 5, -1, -1) < 0.4] = 0
    images[:, :, :4, :4] = 0
    found = encoder(images)[encoder.spec.taps[0]].double().numpy()
    for image, mean in zip(images.double().numpy(), found, strict=True):
        for row in range(3):
            for column in range(3):
                vectors = image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(5, 16)
                there = vectors[:, (vectors != 0).any(0)]
                expected = there.mean(1) if there.size else np.zeros(5)
                np.testing.assert_allclose(mean[:, row, column], expected, atol=1e-5)


def test_bands_can_be_chosen_and_standardised_and_a_pixel_without_a_vector_stays_zero() -> None:
    mean, std = [0.6, 0.1], [0.2, 2.0]
    encoder = build(prepare={"bands": ["A03", "A01"], "mean": mean, "std": std, "low": -2, "high": 3})
    images = torch.randn(1, 5, 12, 12)
    images[:, :, 0, 0] = 0
    found = encoder(images)[encoder.spec.taps[0]].numpy()[0]
    for place, channel in enumerate((3, 1)):
        expected = ((images[0, channel].double().numpy() + 2) / 5 - mean[place]) / std[place]
        expected[0, 0] = 0
        np.testing.assert_allclose(found[place], expected, atol=1e-5)


def test_vectors_of_another_origin_are_another_spec() -> None:
    one, other = build(origin="alphaearth-2023").spec, build(origin="tessera-2023").spec
    assert one != other
    assert any("tessera-2023" in words for words in one.differences(other))


def test_what_is_no_embedding_is_refused() -> None:
    with pytest.raises(UserError, match=r"B04 of .* is reflectance: set data.sensor=EMBEDDING:64"):
        VectorInput(["B04"], sensor="SENTINEL2")
    assert VectorInput(sensor="SENTINEL2+EMBEDDING:3").bands == ("A00", "A01", "A02")
    with pytest.raises(UserError, match="has no vectors"):
        VectorInput(sensor="SENTINEL2")
    with pytest.raises(UserError, match=r"multiple of encoder.stride=5"):
        build(stride=5)
    images = torch.randn(1, 5, 12, 12)
    images[0, 2, 3, 4] = torch.nan
    with pytest.raises(UserError, match="sample x has NaN"):
        build()(images, sample_ids=["x"])


def test_the_numbers_of_alphaearth_are_squares_with_a_sign() -> None:
    numbers = np.arange(-127, 128).astype(np.int8)
    expected = [(abs(int(n)) / 127.5) ** 2 * (1 if n > 0 else -1) for n in numbers]
    np.testing.assert_allclose(Scaling("alphaearth").apply(numbers, BAND), expected, rtol=3e-7, atol=0)
    with pytest.raises(BadImageError, match="is alphaearth for B1"):
        Scaling("alphaearth").apply(numbers, find_sensor("LANDSAT8").bands[0])


def test_whole_numbers_of_vectors_are_not_guessed_at() -> None:
    with pytest.raises(BadImageError, match=r"data.scaling=alphaearth"):
        Scaling().apply(np.zeros(3, np.int8), BAND)
    assert Scaling().apply(np.full(3, 4, np.int8), BAND, scale=0.25).tolist() == [1.0, 1.0, 1.0]
    assert ImageInput(["A00"], sensor="EMBEDDING:3").lows == (-1.0,)


def rasters(folder: Path, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """int8 rasters as AlphaEarth's, with masks that are a function of one channel."""
    drawn = np.random.default_rng(5)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    numbers = drawn.integers(-127, 128, (count, 4, 8, 8)).astype(np.int8)
    numbers[:, :, 0, 0] = -128
    masks = (numbers[:, 2] > 0).astype(np.uint8)
    for n in range(count):
        common: Any = {"driver": "GTiff", "height": 8, "width": 8, "crs": "EPSG:32632"}
        place = rasterio.Affine(10, 0, 500000 + 100 * n, 0, -10, 5500000)
        with rasterio.open(
            folder / "images" / f"{n}.tif", "w", count=4, dtype="int8", nodata=-128, transform=place, **common
        ) as file:
            file.write(numbers[n])
        with rasterio.open(folder / "masks" / f"{n}.tif", "w", count=1, dtype="uint8", transform=place, **common) as f:
            f.write(masks[n], 1)
    return numbers, masks


def words_of(folder: Path) -> list[str]:
    return [
        *("data=rasters", f"data.root={folder}", "data.images='images/{id}.tif'", "data.masks='masks/{id}.tif'"),
        *("data.sensor=EMBEDDING:4", "data.size=8", "data.classes=[low,high]", "data.scaling=alphaearth"),
        *("encoder=embedding", "encoder.origin=alphaearth", "task=segmentation"),
    ]


def test_rasters_of_int8_vectors_are_read_by_the_whole_path(tmp_path: Path) -> None:
    numbers, _ = rasters(tmp_path, 8)
    settings = compose("train", words_of(tmp_path))
    data = settings.data.split("train")
    sample = data[0]
    there = numbers[int(sample["id"].removesuffix(".tif"))].astype(np.float64)
    expected = np.where(there == -128, 0, np.sign(there) * (there / 127.5) ** 2)
    np.testing.assert_allclose(sample["image"].numpy(), expected, rtol=3e-7, atol=0)


@pytest.mark.slow
def test_vectors_stand_in_a_comparison_beside_an_encoder_of_images(tmp_path: Path, monkeypatch: Any) -> None:
    import json

    from satdifuser.cli import main

    _, masks = rasters(tmp_path / "data")
    (tmp_path / "data" / "light").mkdir()
    for n in range(len(masks)):
        light = np.random.default_rng(n).integers(1, 255, (3, 8, 8)).astype(np.uint8)
        with rasterio.open(
            tmp_path / "data" / "light" / f"{n}.tif", "w", driver="GTiff", height=8, width=8, count=3, dtype="uint8"
        ) as file:
            file.write(light)
    monkeypatch.chdir(tmp_path)
    task = words_of(tmp_path / "data")
    own = [word for word in task if word.startswith(("data.images", "data.sensor", "data.scaling"))]
    light = ["data.images='light/{id}.tif'", "data.sensor=AERIAL_RGB"]
    shared = [word for word in task if word not in own and not word.startswith("encoder")]
    experiment = {
        "tasks": {"sign": {"all": [*shared, *light, "data.georeference=ignore"], "vectors": own}},
        "models": {
            "light": ["encoder=rcf", "encoder.features=8", "encoder.stride=1"],
            "vectors": ["encoder=embedding", "encoder.origin=alphaearth"],
        },
        "recipe": ["trainer=quick", "trainer.max_steps=60", "fusion=mean", "decoder=single"],
    }
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    text = "# @package _global_\n" + json.dumps(experiment)
    (tmp_path / "configs" / "experiment" / "mine.yaml").write_text(text)
    words = ["--config-dir", "configs", "experiment=mine", "output=out", "resamples=100"]
    assert main(["compare", *words]) == 0
    runs = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("result.json")]
    scores = sorted(run["test"][run["metric"]] for run in runs)
    assert len(scores) == 2
    assert scores[1] > 0.65 > 0.5 > scores[0]
