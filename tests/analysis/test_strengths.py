"""The strengths that validation chooses among."""

from __future__ import annotations

import numpy as np
import pytest

from satdifuser.analysis.strengths import STRONGEST, WEAKEST, strengths_of
from satdifuser.errors import UserError


def test_a_number_asks_for_so_many_evenly_spaced_from_end_to_end() -> None:
    np.testing.assert_allclose(strengths_of(40), np.geomspace(WEAKEST, STRONGEST, 40))


def test_a_list_is_taken_as_it_is_in_order_and_once() -> None:
    assert strengths_of([10.0, 0.1, 10.0]) == [0.1, 10.0]


@pytest.mark.parametrize("setting", [0, -3, [], [1.0, 0.0], [float("nan")], [float("inf")]])
def test_what_cannot_be_a_strength_is_refused_in_one_line(setting: int | list[float]) -> None:
    with pytest.raises(UserError, match="strengths must be"):
        strengths_of(setting)
