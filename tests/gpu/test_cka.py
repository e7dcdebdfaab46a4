"""CKA and the dimensions of features on the device are those on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from satdifuser.analysis.cka import MinibatchCKA, cka_full
from satdifuser.analysis.dimension import effective_rank, two_nn

pytestmark = pytest.mark.gpu


def test_cka_and_dimensions_are_the_cpus(device: torch.device) -> None:
    shared = torch.randn(120, 4)
    x, y = ([shared @ torch.randn(4, c) + torch.randn(120, c) + 20 for c in sizes] for sizes in ((5, 300), (40,)))
    here, there = MinibatchCKA(2, 1), MinibatchCKA(2, 1)
    for batch in torch.arange(120).split(50):
        here.add(*([each[batch] for each in side] for side in (x, y)))
        there.add(*([each[batch].to(device) for each in side] for side in (x, y)))
    np.testing.assert_allclose(there.value, here.value, rtol=1e-9)
    np.testing.assert_allclose(there.error, here.error, rtol=1e-6)
    for a in x:
        assert cka_full(a.to(device), y[0].to(device)) == pytest.approx(cka_full(a, y[0]), rel=1e-9)
        assert two_nn(a.to(device)) == pytest.approx(two_nn(a), rel=1e-9)
        assert effective_rank(a.to(device)) == pytest.approx(effective_rank(a), rel=1e-6)
