"""Random convolutional features: torchgeo's, as a map or of a whole image, and filters cut from images."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from satdifuser.baselines import rcf
from satdifuser.baselines.patches import cut, whitened
from satdifuser.baselines.rcf import RandomFeatures
from satdifuser.data.bands import SENTINEL2
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError

RGB = ["red", "green", "blue"]


def build(**settings: Any) -> RandomFeatures:
    return RandomFeatures(prepare=ImageInput(RGB), **{"image_size": 12, "features": 10, **settings})


@pytest.mark.parametrize(("kernel", "seed"), [(3, 7), (4, 1)])
def test_of_a_whole_image_the_features_are_those_of_torchgeo(kernel: int, seed: int) -> None:
    models = pytest.importorskip("torchgeo.models")
    images = torch.rand(2, 13, 12, 12) * 0.3
    encoder = build(kernel=kernel, seed=seed, stride=None)
    theirs = models.RCF(in_channels=3, features=10, kernel_size=kernel, bias=-1.0, seed=seed)
    expected = theirs(encoder.prepare(images))
    torch.testing.assert_close(encoder(images)[encoder.spec.taps[0]][..., 0, 0], expected)


@pytest.mark.parametrize("stride", [None, 4])
def test_filters_and_images_taken_a_few_at_once_give_what_all_at_once_give(
    stride: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, images = build(features=30, stride=stride, bias=0.1), torch.rand(3, 13, 12, 12) * 0.3
    whole = encoder(images)[encoder.spec.taps[0]]
    monkeypatch.setattr(rcf, "BLOCK", 1)
    monkeypatch.setattr(rcf, "FEWEST", 4)
    torch.testing.assert_close(encoder(images)[encoder.spec.taps[0]], whole, rtol=1e-6, atol=1e-6)
    x = encoder.prepare(images)[1:2].double()
    if stride is None:
        answers = torch.nn.functional.conv2d(x, encoder._filters.double()) + 0.1
        expected = torch.cat([answers.relu().mean((2, 3)), (-answers).relu().mean((2, 3))], dim=1)
        torch.testing.assert_close(whole[1:2, :, 0, 0].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_a_map_has_the_mean_answers_of_its_cells_pixel_by_pixel(kernel: int) -> None:
    encoder = build(kernel=kernel, stride=4, bias=0.2)
    images = torch.rand(1, 13, 12, 12) * 0.3
    x = encoder.prepare(images)[0].double().numpy()
    left = (kernel - 1) // 2
    padded = np.pad(x, ((0, 0), (left, kernel - 1 - left), (left, kernel - 1 - left)), mode="reflect")
    filters = encoder._filters.double().numpy()
    found = encoder(images)[encoder.spec.taps[0]][0].numpy()
    assert found.shape == (10, 3, 3)
    for number in range(5):
        answers = np.array(
            [
                [(filters[number] * padded[:, r : r + kernel, c : c + kernel]).sum() + 0.2 for c in range(12)]
                for r in range(12)
            ]
        )
        for sign, channel in ((1, number), (-1, number + 5)):
            cells = np.maximum(sign * answers, 0).reshape(3, 4, 3, 4).mean((1, 3))
            np.testing.assert_allclose(found[channel], cells, atol=1e-5)


def test_a_mean_without_mirrored_edges_is_not_exchangeable_with_one_that_has_them() -> None:
    images = torch.rand(1, 13, 12, 12) * 0.3
    bare, mirrored = build(stride=None), build(stride=12)
    found = [encoder(images)[encoder.spec.taps[0]] for encoder in (bare, mirrored)]
    assert found[0].shape == found[1].shape
    assert not torch.allclose(*found, atol=1e-3)
    assert bare.spec != mirrored.spec


def test_whitened_patches_are_those_of_torchgeo() -> None:
    models = pytest.importorskip("torchgeo.models")
    patches = np.random.default_rng(0).random((40, 3, 2, 2))
    patches[3] = 0.5  # nothing to see in it
    expected = models.RCF(in_channels=3, features=4)._normalize(patches.astype(np.float32))
    np.testing.assert_allclose(whitened(patches), expected, rtol=2e-3, atol=2e-3)


def test_patches_come_from_everywhere_in_the_images_and_depend_on_the_seed_alone() -> None:
    images = [torch.full((2, 6, 6), float(number)) for number in range(3)]
    grid = torch.arange(36.0).view(1, 6, 6)
    found = cut([grid], 2000, 3, seed=1)
    assert {int(patch[0, 0, 0]) for patch in found} == {6 * r + c for r in range(4) for c in range(4)}
    assert all((patch - patch[0, 0, 0] == grid[0, :3, :3].numpy()).all() for patch in found)
    assert {float(patch[0, 0, 0]) for patch in cut(images, 50, 2, seed=0)} == {0.0, 1.0, 2.0}
    assert (cut(images, 9, 2, seed=3) == cut(images, 9, 2, seed=3)).all()


def test_filters_of_a_file_are_used_and_named_by_their_contents(tmp_path: Path) -> None:
    filters = torch.randn(5, 3, 3, 3)
    save_file({"filters": filters}, tmp_path / "f.safetensors")
    encoder = build(filters=str(tmp_path / "f.safetensors"))
    assert torch.equal(encoder._filters, filters)
    assert encoder.spec.weights != build().spec.weights
    assert build(seed=1).spec != build(seed=2).spec
    assert not list(encoder.parameters())
    with pytest.raises(UserError, match=r"has filters \(5, 3, 3, 3\), and asked for is \(6, 3, 3, 3\)"):
        build(filters=str(tmp_path / "f.safetensors"), features=12)
    with pytest.raises(UserError, match=r"no file .*; encoder.filters=gaussian or patches needs no file"):
        build(filters=str(tmp_path / "none.safetensors"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kernel": 13}, "encoder.kernel is 13: images have 12 px"),
        ({"stride": 5}, "encoder.image_size is 12: use a multiple of encoder.stride=5"),
        ({"features": 7}, "encoder.features is 7: it must be a whole number of 2 or more"),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(**settings)


def test_the_tool_cuts_filters_that_the_encoder_takes(tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "tools" / "rcf_filters.py"
    spec = importlib.util.spec_from_file_location("rcf_filters", file)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    words = ["data=synthetic", "data.size=16", "data.splits.train.length=6", "encoder.features=20"]
    made = tool.main([str(tmp_path / "f.safetensors"), *words])
    assert load_file(made)["filters"].shape == (10, 3, 3, 3)
    encoder = RandomFeatures(prepare=ImageInput(RGB), image_size=16, features=20, filters=str(made))
    bank = encoder(torch.rand(1, len(SENTINEL2), 16, 16) * 0.3)
    assert bool(bank[encoder.spec.taps[0]].isfinite().all())
