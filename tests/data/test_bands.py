"""Band metadata: positions by name, and errors that say which names there are."""

from __future__ import annotations

import random

import pytest

from satdifuser.data.bands import SENTINEL2, SENTINEL2_RGB, Band, Sensor, find_sensor
from satdifuser.errors import UserError


def test_sensor_names_and_common_names_give_the_same_positions() -> None:
    chosen = random.sample(range(13), 13)
    bands = list(SENTINEL2)
    assert SENTINEL2.index([bands[i].name for i in chosen]) == tuple(chosen)
    assert SENTINEL2.index([bands[i].common for i in chosen]) == tuple(chosen)


def test_the_sensor_has_the_thirteen_bands_of_the_satellite_in_its_order() -> None:
    names = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12"
    assert " ".join(SENTINEL2.names) == names
    assert [band.wavelength for band in SENTINEL2] == sorted(band.wavelength for band in SENTINEL2)
    ten = {band.name for band in SENTINEL2 if band.gsd == 10}
    assert ten == {"B02", "B03", "B04", "B08"}
    assert {band.name for band in SENTINEL2 if band.gsd == 60} == {"B01", "B09", "B10"}


def test_a_sensor_name_wins_over_another_bands_common_name() -> None:
    odd = Sensor("odd", (Band("a", "b", 1, 10), Band("b", "a", 2, 10)))
    assert odd.index(["a", "b"]) == (0, 1)


@pytest.mark.parametrize(("wanted", "hint"), [("B8", "B08"), ("redd", "red")])
def test_an_unknown_band_is_an_error_that_lists_the_bands_and_suggests_one(wanted: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        SENTINEL2.index(["B04", wanted])
    message = str(caught.value)
    assert wanted in message
    assert ", ".join(SENTINEL2.names) in message
    assert hint in message.partition("did you mean")[2]
    assert "\n" not in message


def test_every_unknown_band_is_named() -> None:
    with pytest.raises(UserError, match="xx, yy"):
        SENTINEL2.index(["xx", "B04", "yy"])


def test_a_sensor_is_found_by_its_path_and_given_back_as_it_is() -> None:
    assert find_sensor("satdifuser.data.bands.SENTINEL2") is SENTINEL2
    assert find_sensor(SENTINEL2) is SENTINEL2


@pytest.mark.parametrize(
    "path",
    [
        "SENTINEL3",
        "satdifuser.data.bands.SENTINEL3",
        "satdifuser.nowhere.SENTINEL2",
        "satdifuser.data.bands.Band",
        "",
        ".bands.SENTINEL2",
    ],
)
def test_what_leads_to_no_sensor_is_a_user_error_with_the_names_and_examples(path: str) -> None:
    with pytest.raises(UserError, match="SENTINEL2:B04/B03/B02") as caught:
        find_sensor(path)
    assert repr(path) in str(caught.value)
    assert "LANDSAT8" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_some_bands_of_several_sensors_are_one_sensor_in_the_order_of_the_words() -> None:
    found = find_sensor("SENTINEL2:nir/B02/red+SENTINEL1:VH")
    assert found.names == ("B08", "B02", "B04", "VH")
    assert [band.unit for band in found] == ["reflectance"] * 3 + ["dB"]
    assert found.limits[0] == (-0.2, 7.0)
    assert found.limits[3][0] < -25 < 0 < found.limits[3][1]
    assert find_sensor("satdifuser.data.bands.SENTINEL2:B04/B03/B02").bands == SENTINEL2_RGB.bands


def test_sensors_with_one_band_twice_are_refused() -> None:
    for words in ("SENTINEL2+SENTINEL2_RGB", "SENTINEL2:B04/red"):
        with pytest.raises(UserError, match="two bands B0"):
            find_sensor(words)


def test_pictures_of_a_sensor_have_another_unit_and_the_same_wavelengths() -> None:
    plain, pictures = find_sensor("LANDSAT8:red/green"), find_sensor("LANDSAT8:red/green@colour")
    assert {band.unit for band in pictures} == {"colour"}
    assert [band.wavelength for band in pictures] == [band.wavelength for band in plain]
    assert pictures.name != plain.name  # so that features of one are not taken for the other's
    with pytest.raises(UserError, match="it can be reflectance"):
        find_sensor("LANDSAT8@color")


def test_every_sensor_has_bands_in_a_known_unit_and_what_is_usual_within_what_can_be() -> None:
    import satdifuser.data.sensors as every

    found = [getattr(every, name) for name in every.__all__]
    assert len(found) >= 15
    for sensor in found:
        assert isinstance(sensor, Sensor)
        for band in sensor:
            assert band.valid[0] <= band.usual[0] < band.usual[1] <= band.valid[1]
            assert band.gsd > 0
            assert band.wavelength > 400 or band.unit in ("metres", "embedding")
    assert sorted(every.SENTINEL2_B8A_LAST.names) == sorted(SENTINEL2.names)
    assert every.SENTINEL2_B8A_LAST.names[-1] == "B8A"
