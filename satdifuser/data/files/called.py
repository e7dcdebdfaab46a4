"""What a file calls its bands, and which of a sensor's bands these words mean."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from satdifuser.data.bands import Sensor
from satdifuser.data.files.fitting import SKIP
from satdifuser.data.files.names import shown
from satdifuser.errors import UserError

Words = tuple[str, ...]

ALIASES = {
    "swir1": "swir16",
    "swir2": "swir22",
    "rededge071": "rededge1",
    "rededge075": "rededge2",
    "rededge078": "rededge3",
    "nirnarrow": "nir08",
    "aerosol": "coastal",
    "panchromatic": "pan",
}
"""Common names by which others call the same."""
_BETWEEN = re.compile(r"[^A-Za-z0-9]+")
_ZEROS = re.compile(r"^([a-z]+)0+(?=\d)")


def words_of(description: str | None, tags: Mapping[str, str]) -> Words:
    """What a file calls a band: its description, or a tag that is about its name."""
    kinds = {key.lower(): value for key, value in tags.items()}
    found = [description or "", *(kinds.get(key, "") for key in ("bandname", "band_name", "name", "common_name"))]
    return tuple(dict.fromkeys(word.strip() for word in found if word and word.strip()))


def plain(word: str) -> str:
    """A name without its case and the zeros before its number.

    >>> plain("B04"), plain("B8A"), plain("A00"), plain("B10")
    ('b4', 'b8a', 'a0', 'b10')
    """
    return _ZEROS.sub(r"\1", word.strip().lower())


def hits(words: Sequence[str], sensor: Sensor) -> tuple[int, tuple[int, ...]]:
    """How surely these words mean bands of the sensor (0 is the surest), and which.

    0: the whole word is a name or a common name; 1: a part of it is a name; 2: a part of it is a common name.

    >>> from satdifuser.data.bands import SENTINEL2
    >>> [hits([word], SENTINEL2) for word in ("B4", "B4, central wavelength 665 nm", "SR_red", "QA_PIXEL")]
    [(0, (3,)), (1, (3,)), (2, (3,)), (3, ())]
    """
    names = {plain(band.name): place for place, band in enumerate(sensor)}
    common = {plain(band.common): place for place, band in reversed(list(enumerate(sensor)))}
    whole = [plain(word) for word in words]
    parts = [plain(part) for word in words for part in _BETWEEN.split(word) if part]
    levels = (
        [names.get(word, common.get(ALIASES.get(word, word))) for word in whole],
        [names.get(part) for part in parts],
        [common.get(ALIASES.get(part, part)) for part in parts],
    )
    for level, found in enumerate(levels):
        places = tuple(sorted({place for place in found if place is not None}))
        if places:
            return level, places
    return len(levels), ()


@functools.lru_cache(maxsize=2**10)
def another_order(called: tuple[Words, ...], sensor: Sensor, places: tuple[int, ...]) -> tuple[str, str] | None:
    """Both orders, where bands are called by the names of the sensor's bands at `places`, in another order than these.

    Of bands without names, or with one that the sensor does not know, nothing can be said.

    >>> from satdifuser.data.bands import SENTINEL2_RGB
    >>> another_order((("B02",), ("B03",), ("B04",)), SENTINEL2_RGB, (0, 1, 2))
    ('B02, B03, B04', 'B04, B03, B02')
    """
    found = [hits(words, sensor)[1] for words in called]
    meant = [place for one in found for place in one]
    if any(len(one) != 1 for one in found) or sorted(meant) != sorted(places) or meant == list(places):
        return None
    said = ", ".join(shown(words[0])[:40] for words in called)
    return said, ", ".join(sensor.names[place] for place in places)


def check_order(
    path: Path, names: Sequence[Words], sensor: Sensor, read: Sequence[tuple[int, int]], setting: str = ""
) -> None:
    """Refuse a file that calls its bands as the sensor does, in another order than they are read in.

    `read`: places in the sensor, each with the band of the file that is taken for it.
    """
    if not any(names):
        return
    ordered = sorted(read, key=lambda pair: pair[1])
    called = tuple(names[band] if band < len(names) else () for _, band in ordered)
    orders = another_order(called, sensor, tuple(place for place, _ in ordered))
    if orders is not None:
        said, ours = orders
        where = setting or "data.sensor"
        raise UserError(
            f"{shown(path)} says that its bands are {said}, but {where} has them as {ours}: give {where} the order of"
            f" the file{'' if setting else ' (SENTINEL2:B04/B03/B02)'}, or, where what the file says is wrong, set"
            f" data.descriptions=ignore {SKIP}"
        )
