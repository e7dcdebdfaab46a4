"""Bands by spyndex's names: what indices are computed from."""

from __future__ import annotations

import random

import pytest

from deflect.bands import Band, as_bands, standard_names
from satdifuser.bank import BankError
from satdifuser.data.bands import SENTINEL2


def test_every_band_of_sentinel2_but_cirrus_has_the_name_that_spyndex_gives_it() -> None:
    names = standard_names(as_bands(SENTINEL2))
    assert {name: SENTINEL2.names[channel] for name, channel in names.items()} == {
        "A": "B01",
        "B": "B02",
        "G": "B03",
        "R": "B04",
        "RE1": "B05",
        "RE2": "B06",
        "RE3": "B07",
        "N": "B08",
        "N2": "B8A",
        "WV": "B09",
        "S1": "B11",
        "S2": "B12",
    }


def test_spyndex_itself_says_the_same_of_sentinel2() -> None:
    import spyndex

    ours = {name: SENTINEL2.names[channel] for name, channel in standard_names(as_bands(SENTINEL2)).items()}
    theirs = {
        name: band.sentinel2a.band
        for name in spyndex.bands
        if hasattr(band := spyndex.bands[name], "sentinel2a") and name not in ("G1", "Y")
    }
    plain = {name: band[0] + band[1:].rjust(2, "0") for name, band in theirs.items()}
    assert ours == plain


def test_names_follow_the_bands_and_not_their_order() -> None:
    bands = as_bands(SENTINEL2)
    order = random.sample(range(13), 13)
    shuffled = standard_names([bands[i] for i in order])
    assert {name: order[channel] for name, channel in shuffled.items()} == standard_names(bands)


def test_a_camera_of_four_bands_has_four_names() -> None:
    camera = [Band("c1", "red", 650), Band("c2", "green", 560), Band("c3", "blue", 480), Band("c4", "nir", 840)]
    assert standard_names(camera) == {"R": 0, "G": 1, "B": 2, "N": 3}


def test_the_near_infrared_of_landsat_is_the_near_infrared_although_it_lies_where_sentinel2_has_its_narrow_one() -> (
    None
):
    landsat = [Band("SR_B4", "red", 654.6), Band("SR_B5", "nir", 864.7), Band("SR_B6", "swir16", 1608.9)]
    assert standard_names(landsat) == {"R": 0, "N": 1, "S1": 2}


def test_without_a_common_name_the_wavelength_decides() -> None:
    found = standard_names([Band("x", "", 2200), Band("y", "", 865), Band("z", "", 490), Band("w", "", 1375)])
    assert found == {"S2": 0, "N2": 1, "B": 2}


def test_of_two_bands_of_one_kind_the_first_counts() -> None:
    assert standard_names([Band("left", "red", 640), Band("right", "red", 660)]) == {"R": 0}


@pytest.mark.parametrize("bands", [[], [Band("B04", "red", 665), Band("B04", "nir", 842)]])
def test_channels_without_a_name_of_their_own_are_an_error(bands: list[Band]) -> None:
    with pytest.raises(BankError, match="every channel of the image a name of its own"):
        as_bands(bands)


def test_any_record_of_a_band_will_do_and_its_width_is_kept() -> None:
    bands = as_bands(SENTINEL2)
    assert [band.name for band in bands] == list(SENTINEL2.names)
    assert [band.bandwidth for band in bands] == [band.bandwidth for band in SENTINEL2]
    assert as_bands(bands) == bands
