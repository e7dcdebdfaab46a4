"""Shared by the tests of the heads."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def projections(slow):
    """B_l(f[t, l]) of every tap for one sample, as `{(timestep, name): [C, H, W]}`, computed slowly."""

    def compute(head, bank, sample):
        return {
            (tap.timestep, tap.name): slow.bottleneck(
                head.project[tap.name.replace(".", "/")], value[sample].detach().numpy()
            )
            for tap, value in bank.items()
        }

    return compute


@pytest.fixture
def close():
    """Assert that two arrays agree to what float64 allows."""

    def check(mine, theirs):
        np.testing.assert_allclose(np.asarray(mine.detach()), theirs, rtol=1e-9, atol=1e-9)

    return check


@pytest.fixture(scope="session")
def theirs():
    """The stand-ins for the released code."""
    spec = importlib.util.spec_from_file_location("released_code", Path(__file__).with_name("released_code.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
