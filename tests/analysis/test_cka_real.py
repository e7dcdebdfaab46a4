"""CKA of real features: Song et al.'s formula of all samples, and minibatches within their standard errors of it."""

from __future__ import annotations

import math
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.analysis.cka import MinibatchCKA, cka_full


def song(x: Any, y: Any) -> float:
    """HSIC_1 of linear kernels, equation 5 of Song et al. 2012, in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, ones = len(x), np.ones(len(x))
    k, l = ((a - a.mean(0)) @ (a - a.mean(0)).T for a in (x, y))  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    second = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return float((np.trace(k @ l) + second - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3)))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The means of the maps of the shipped ViT and of the shipped UNet on real EuroSAT images."""
    folder = os.environ.get("SATDIFUSER_TEST_DATA")
    if not folder:
        pytest.skip("SATDIFUSER_TEST_DATA is not set: it names the folder of eurosat-rgb.tar")
    from satdifuser.config import compose
    from satdifuser.data.batches import OrderedBatches, loader
    from satdifuser.temporal.reading import read

    root = tmp_path_factory.mktemp("eurosat")
    with tarfile.open(Path(folder) / "eurosat-rgb.tar") as archive:
        images = [member for member in archive if member.name.endswith(".jpg")]
        archive.extractall(root, images[::90], filter="data")
    sides = []
    for name in ("small_vit", "small"):
        settings = compose("train", [f"encoder={name}", "data=image_folder", f"data.root={root}"])
        data, encoder = settings.data.split("train"), settings.encoder.build().eval()
        with torch.no_grad():
            banks = [read(encoder, batch) for batch in loader(data, OrderedBatches(len(data), 32))]
        sides.append([torch.cat([bank[tap].mean((2, 3)) for bank in banks]) for tap in banks[0].spec.taps])
    return sides[0], sides[1]


@pytest.mark.slow
def test_of_real_features_one_batch_is_exact_and_minibatches_within_their_errors(real: Any) -> None:
    x, y = real
    count = len(x[0])
    assert count > 150
    own, other = [song(a, a) for a in x], [song(b, b) for b in y]
    wanted = np.array([[song(a, b) / math.sqrt(p * q) for b, q in zip(y, other)] for a, p in zip(x, own)])  # noqa: B905
    whole = MinibatchCKA(len(x), len(y))
    whole.add(x, y)
    np.testing.assert_allclose(whole.value, wanted, rtol=1e-10)
    np.testing.assert_allclose([[cka_full(a, b) for b in y] for a in x], wanted, rtol=1e-10)
    parts = MinibatchCKA(len(x), len(y))
    for batch in torch.randperm(count).tensor_split(8):
        parts.add(*([each[batch] for each in side] for side in (x, y)))
    assert np.abs((parts.value - wanted) / parts.error).max() < 4
    assert np.abs(parts.value - wanted).max() < 0.1
    assert parts.error.max() < 0.1
