"""What a number is worth: every policy against its formula in float64, and what cannot be meant is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from satdifuser.data.bands import SENTINEL2, Band, find_sensor
from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.scaling import Scaling
from satdifuser.data.sensors import SENTINEL1
from satdifuser.errors import UserError

RED, VV = SENTINEL2.bands[3], SENTINEL1.bands[0]
POLICIES: list[tuple[Any, Band, Any, Any]] = [
    ("as_is", RED, np.float32, lambda n: n),
    ({"numbers": "dn", "unit": 5000}, RED, np.uint16, lambda n: n / 5000),
    ({"numbers": "dn", "unit": 10000, "offset": -1000}, RED, np.uint16, lambda n: (n - 1000) / 10000),
    ({"numbers": "dn", "unit": 100}, VV, np.int16, lambda n: n / 100),
    ({"numbers": "8bit"}, RED, np.uint8, lambda n: n / 255),
    ({"numbers": "8bit", "white": 0.275}, RED, np.uint8, lambda n: n / 255 * 0.275),
    ("power", VV, np.float32, lambda n: 10 * np.log10(n)),
    ("amplitude", VV, np.float32, lambda n: 20 * np.log10(n)),
    ("auto", RED, np.uint8, lambda n: n / 255),
    ("auto", RED, np.int16, lambda n: n / 10000),
    ("auto", RED, np.float64, lambda n: n),
]


@pytest.mark.parametrize(("words", "band", "kind", "formula"), POLICIES)
def test_a_policy_is_its_formula(words: Any, band: Band, kind: Any, formula: Any) -> None:
    top = 255 if kind == np.uint8 else 30000
    drawn = np.random.default_rng().random((7, 9)) * top + 1
    numbers = drawn.astype(kind) if np.dtype(kind).kind in "iu" else (drawn / top).astype(kind)
    found = Scaling.of(words).apply(numbers, band)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, formula(numbers.astype(np.float64)), rtol=3e-7, atol=1e-5)


def test_bands_of_their_own_are_scaled_by_their_own() -> None:
    scaling = Scaling.of({"numbers": "dn", "unit": 10000, "bands": {"VV": "power"}})
    assert float(scaling.apply(np.array([100.0]), VV)[0]) == pytest.approx(20)
    assert float(scaling.apply(np.array([100.0]), RED)[0]) == pytest.approx(0.01)
    assert scaling.to_dict()["bands"] == {"VV": {"numbers": "power"}}
    assert scaling.words() == "number / 10000; VV: 10 log10(number)"


def test_what_does_not_count_is_not_in_the_identity() -> None:
    assert Scaling.of({"numbers": "dn", "white": 3.0}).to_dict() == Scaling.of("dn").to_dict()
    assert Scaling.of({"numbers": "dn", "unit": 3.0}).to_dict() != Scaling.of("dn").to_dict()
    assert Scaling.of({"numbers": "dn", "offset": 3.0}).to_dict() != Scaling.of("dn").to_dict()


def test_radar_power_of_zero_is_a_floor_and_not_minus_infinity() -> None:
    assert Scaling.of("power").apply(np.zeros(3), VV).tolist() == pytest.approx([-100.0] * 3)


def test_light_is_never_power_and_signed_bytes_are_nothing() -> None:
    with pytest.raises(BadImageError, match="which is reflectance"):
        Scaling.of("power").apply(np.ones(2), RED)
    with pytest.raises(BadImageError, match="int8"):
        Scaling.of("auto").apply(np.ones(2, np.int8), RED)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("dm", "it can be auto"),
        ({"numbers": "dn", "unti": 3}, "data.scaling.unti"),
        ({"numbers": "dn", "unit": 0}, "data.scaling.unit"),
        ({"numbers": "dn", "unit": "a lot"}, "data.scaling.unit"),
        ({"numbers": "8bit", "white": -1}, "data.scaling.white"),
        ({"bands": {"VV": {"numbers": "powr"}}}, "data.scaling.bands.VV.numbers"),
    ],
)
def test_other_words_are_one_line_that_names_the_setting(words: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        Scaling.of(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sensor", ["SENTINEL1", "LANDSAT8:B10"])
def test_whole_numbers_of_radar_and_heat_are_not_guessed_at(sensor: str) -> None:
    band = find_sensor(sensor).bands[0]
    for kind in (np.int16, np.uint8, np.uint16):
        with pytest.raises(BadImageError, match=f"whole numbers .* for {band.name}, which is {band.unit}"):
            Scaling.of("auto").apply(np.full(3, 120, kind), band)
    assert Scaling.of("auto").apply(np.full(3, -12.5, np.float32), band).tolist() == [-12.5] * 3
    assert Scaling.of({"numbers": "dn", "unit": 100}).apply(np.full(1, 1500, np.int16), band).tolist() == [15.0]


def test_heights_are_metres_in_any_kind_of_number() -> None:
    (band,) = find_sensor("HEIGHT").bands
    assert Scaling.of("auto").apply(np.array([350], np.int16), band).tolist() == [350.0]


def test_a_bands_own_policy_must_be_of_a_band() -> None:
    sensor = find_sensor("SENTINEL2+SENTINEL1")
    for word in ("VV", "vv", "red", "B8A"):
        Scaling.of({"bands": {word: "as_is"}}).check_bands(sensor)
    assert Scaling.of({"numbers": "as_is", "bands": {"vv": "power"}}).apply(np.array([0.1]), VV)[0] == pytest.approx(
        -10
    )
    Scaling.of({"bands": {"VV": "power"}}).check_bands(find_sensor("SENTINEL2"))  # of a set that could have radar too
    with pytest.raises(UserError, match=r"data\.scaling\.bands has b04, which is no band"):
        Scaling.of({"bands": {"b04": "as_is"}}).check_bands(sensor)
