"""The built-in scenes: the same on every machine, with labels that follow from the pixels."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import satdifuser
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.synthetic.scenes import CLOUD_RATE, NODATA_RATE, Scene, render
from satdifuser.data.synthetic.spectra import CLASSES, IGNORE
from satdifuser.data.synthetic.texture import Stream, at_resolution, blur

NIR, RED, BLUE = SENTINEL2.index(["nir", "red", "blue"])
FEW = [(0, 0, 64), (0, 1, 48), (7, 2_000_003, 65), (123, 3_000_001, 16), (5, 9, 33)]

# The identity contract: scenes never change, between machines, NumPy versions or commits, because published stores and
# numbers are made from them. This is no check that they are right (the other tests are); it may not be updated.
CHECKSUM = "6d368a80419ea716b69e9b230cabf6a149a25f42ed09b28feac9f362214f7f6b"


@functools.cache
def forty() -> tuple[Scene, ...]:
    return tuple(render(11, index) for index in range(40))


def checksum(scenes: list[tuple[int, int, int]]) -> str:
    digest = hashlib.sha256()
    for seed, index, size, rate in [(*scene, rate) for scene in scenes for rate in (None, 0.5)]:
        scene = render(seed, index, size) if rate is None else render(seed, index, size, nodata=rate, cloud=rate)
        for part in (scene.image.astype("<u2"), scene.mask, scene.multilabel):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(f"{scene.label} {scene.vegetation.hex()}".encode())
    return digest.hexdigest()


def test_scenes_are_the_ones_they_have_always_been() -> None:
    assert checksum(FEW) == CHECKSUM


@pytest.mark.parametrize("simd", [True, False], ids=["as it is", "without SIMD dispatch"])
def test_another_process_renders_the_same_scenes(simd: bool) -> None:
    fresh = [(int(s), int(i), 40) for s, i in np.random.default_rng().integers(0, 2**31, (3, 2))]
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('test_scenes_copy', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        f"print(module.checksum({fresh!r}))\n"
    )
    root = str(Path(satdifuser.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "4242", "OMP_NUM_THREADS": "3"}
    if not simd:  # stands in for an older processor
        internals = getattr(getattr(np, "_core", None), "_multiarray_umath", None)
        there = getattr(internals, "__cpu_features__", {})
        found = [name for name in getattr(internals, "__cpu_dispatch__", []) if there.get(name)]
        if not found:
            pytest.skip("this NumPy dispatches to no processor feature")
        environment["NPY_DISABLE_CPU_FEATURES"] = " ".join(found)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == checksum(fresh), fresh


def test_global_random_state_plays_no_part() -> None:
    np.random.seed(1)
    first = checksum(FEW[:2])
    np.random.seed(2)
    np.random.default_rng().random(3)
    assert checksum(FEW[:2]) == first


def test_another_index_or_seed_is_another_scene() -> None:
    images = [render(seed, index, 32).image.tobytes() for seed in range(4) for index in range(8)]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("size", [16, 17, 30, 47, 64, 71, 96])
def test_a_scene_has_thirteen_bands_and_labels_of_any_size(size: int) -> None:
    scene = render(3, size, size)
    assert scene.image.shape == (13, size, size)
    assert scene.image.dtype == np.uint16
    assert scene.mask.shape == (size, size)
    assert scene.multilabel.shape == (len(CLASSES),)
    assert set(np.unique(scene.mask)) <= {*range(len(CLASSES)), IGNORE}


@pytest.mark.parametrize("size", [15, 1, 0, -16])
def test_a_scene_that_is_too_small_is_refused_with_the_least_size(size: int) -> None:
    with pytest.raises(ValueError, match="16"):
        render(0, 0, size)


def test_without_clouds_what_is_ignored_is_what_has_no_data_in_every_band() -> None:
    marked = 0
    for index in range(12):
        scene = render(5, index, 37, nodata=1.0, cloud=0.0)
        empty = scene.image == 0
        assert (empty.any(0) == empty.all(0)).all()
        assert (empty.all(0) == (scene.mask == IGNORE)).all()
        marked += int(empty.any())
    assert marked == 12  # nodata=1.0 gives every scene a margin


def test_without_margin_and_clouds_nothing_is_ignored_and_no_pixel_is_zero() -> None:
    for index in range(12):
        scene = render(5, index, 37, nodata=0.0, cloud=0.0)
        assert scene.image.min() >= 1
        assert not (scene.mask == IGNORE).any()


def test_a_margin_changes_only_its_own_pixels() -> None:
    for index in range(6):
        bare, cut = render(8, index, 40, nodata=0.0), render(8, index, 40, nodata=1.0)
        valid = (cut.image != 0).all(0)
        assert (cut.image[:, valid] == bare.image[:, valid]).all()
        assert (cut.mask[valid] == bare.mask[valid]).all()


def test_clouded_pixels_are_ignored_and_bright_and_the_rest_keeps_its_class() -> None:
    clouded = 0
    for index in range(25):
        clear, cloudy = (render(6, index, 48, nodata=0.0, cloud=rate) for rate in (0.0, 1.0))
        hidden = cloudy.mask == IGNORE
        assert (cloudy.image != 0).all()
        assert (cloudy.mask[~hidden] == clear.mask[~hidden]).all()
        if hidden.any():
            clouded += 1
            before, after = (scene.image[BLUE][hidden].astype(np.int64) for scene in (clear, cloudy))
            assert (after > before).mean() > 0.95  # all but noise
            far = ndimage.binary_erosion(~hidden, iterations=6)
            if far.any():
                assert np.median(cloudy.image[BLUE][hidden]) > np.median(cloudy.image[BLUE][far])
    assert clouded >= 5


def test_margins_and_clouds_come_about_as_often_as_their_rates_say() -> None:
    count = 160
    scenes = [render(21, index, 16) for index in range(count)]
    margins = sum((scene.image == 0).any() for scene in scenes)
    assert abs(margins - count * NODATA_RATE) < 4 * np.sqrt(count * NODATA_RATE * (1 - NODATA_RATE))
    clouded = sum(((scene.mask == IGNORE) & (scene.image[0] != 0)).any() for scene in scenes)
    thick = sum((render(21, index, 16, nodata=0.0, cloud=1.0).mask == IGNORE).any() for index in range(count))
    expected = thick * CLOUD_RATE  # of the scenes whose cloud field is thick enough anywhere
    assert 0 < clouded < thick
    assert abs(clouded - expected) < 4 * np.sqrt(expected)


def test_class_and_multilabel_are_those_of_the_valid_pixels_counted_one_by_one() -> None:
    rng = np.random.default_rng()
    partial = 0
    for index in rng.integers(0, 10**6, 20):
        scene = render(1, int(index), int(rng.integers(16, 40)), nodata=0.5, cloud=0.5)
        counts = dict.fromkeys(range(len(CLASSES)), 0)
        for row in scene.mask.tolist():
            for value in row:
                if value != IGNORE:
                    counts[value] += 1
        total = sum(counts.values())
        assert total > 0
        assert counts[scene.label] == max(counts.values()), index
        for number, count in counts.items():
            assert scene.multilabel[number] == (1 if 20 * count >= total else 0), (index, number)
        partial += int(any(0 < 20 * count < total for count in counts.values()))
    assert partial > 0  # the threshold decided something


def test_vegetation_is_a_fraction_that_follows_ndvi() -> None:
    greenness, fraction = [], []
    for scene in forty():
        assert 0.0 <= scene.vegetation <= 1.0
        valid = scene.mask != IGNORE
        nir, red = (scene.image[band][valid].astype(np.float64) for band in (NIR, RED))
        greenness.append(((nir - red) / (nir + red)).mean())
        fraction.append(scene.vegetation)
    assert np.corrcoef(greenness, fraction)[0, 1] > 0.6
    assert np.std(fraction) > 0.05


def test_vegetation_counts_valid_pixels_only() -> None:
    hidden_fraction, hidden_greenness = [], []
    for index in range(40):
        whole, cut = (render(13, index, 32, nodata=rate, cloud=0.0) for rate in (0.0, 1.0))
        hidden = cut.mask == IGNORE
        share = hidden.mean()
        # whole = (1 - share) * cut + share * rest: the rest is the vegetation of the hidden pixels
        rest = (whole.vegetation - (1 - share) * cut.vegetation) / share
        assert -1e-9 <= rest <= 1 + 1e-9
        nir, red = (whole.image[band][hidden].astype(np.float64) for band in (NIR, RED))
        hidden_fraction.append(rest)
        hidden_greenness.append(((nir - red) / (nir + red)).mean())
    assert np.corrcoef(hidden_fraction, hidden_greenness)[0, 1] > 0.6


def test_water_is_darker_than_forest_in_the_near_infrared() -> None:
    water, forest = [], []
    for scene in forty():
        for into, classes in ((water, ["water"]), (forest, ["broadleaf", "conifer"])):
            where = np.isin(scene.mask, [CLASSES.index(name) for name in classes])
            into.extend(scene.image[NIR][where].tolist())
    assert np.median(water) < 0.5 * np.median(forest)
    assert np.mean(np.asarray(water) < np.percentile(forest, 10)) > 0.8


def test_every_class_occurs_and_is_the_main_class_of_some_scene() -> None:
    pixels = np.bincount(np.concatenate([s.mask[s.mask != IGNORE] for s in forty()]), minlength=len(CLASSES))
    assert (pixels / pixels.sum() > 0.02).all(), pixels
    assert {scene.label for scene in forty()} == set(range(len(CLASSES)))


def test_scenes_are_textured_rather_than_flat_within_a_class() -> None:
    for scene in forty()[:10]:
        where = ndimage.binary_erosion(scene.mask == scene.label, iterations=2)
        if where.sum() > 50:
            assert scene.image[NIR][where].std() > 5


def test_bands_of_60_m_are_constant_within_their_cells() -> None:
    scene = render(2, 4, 40, nodata=0.0, cloud=0.0)
    for band, factor in ((0, 6), (4, 2), (3, 1)):
        image = scene.image[band].astype(np.int64)
        same_row = (np.diff(image, axis=1) == 0).mean(0)
        for column, share in enumerate(same_row):
            assert (share == 1.0) == ((column + 1) % factor != 0), (band, column)


def test_normal_numbers_have_mean_zero_and_variance_one() -> None:
    seed = int(np.random.default_rng().integers(2**31))
    draws = Stream(seed, 0).normal((500, 400)).ravel()
    assert abs(draws.mean()) < 5 / np.sqrt(draws.size)
    assert abs(draws.var() - 1) < 0.02
    assert abs((draws**3).mean()) < 0.05
    assert 1.5 < np.abs(draws).max() < np.sqrt(12)  # four uniforms cannot give more
    assert np.quantile(draws, 0.975) == pytest.approx(1.96, abs=0.05)


def test_uniform_numbers_are_uniform_and_differ_from_stream_to_stream() -> None:
    seed = int(np.random.default_rng().integers(2**31))
    draws = Stream(seed, 1).uniform(50_000)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, 20, (0, 1))[0]
    assert ((counts - 2500) ** 2 / 2500).sum() < 60  # chi-squared, 19 degrees of freedom
    other = Stream(seed, 2).uniform(50_000)
    assert abs(np.corrcoef(draws, other)[0, 1]) < 0.03


def test_integers_reach_every_value_below_their_bound_about_equally_often() -> None:
    draws = Stream(int(np.random.default_rng().integers(2**31)), 0).integers(8000, 8)
    assert (np.abs(np.bincount(draws, minlength=8) - 1000) < 200).all()
    assert draws.max() == 7


@pytest.mark.parametrize(("size", "factor"), [(24, 6), (25, 6), (17, 2), (13, 1), (5, 6)])
def test_a_coarser_band_is_the_mean_of_each_cell(size: int, factor: int) -> None:
    band = np.random.default_rng().random((size, size))
    seen = at_resolution(band, factor)
    for row in range(size):
        for column in range(size):
            top, left = row // factor * factor, column // factor * factor
            total = 0.0
            for y in range(top, top + factor):
                for x in range(left, left + factor):
                    total += band[min(y, size - 1), min(x, size - 1)]
            assert seen[row, column] == pytest.approx(total / factor**2, rel=1e-12)


@pytest.mark.parametrize("size", [16, 31])
def test_the_blur_is_scipys_binomial_filter_with_repeated_edges(size: int) -> None:
    image = np.random.default_rng().random((size, size))
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    np.testing.assert_allclose(blur(image), ndimage.correlate(image, weights, mode="nearest"), rtol=1e-12)
