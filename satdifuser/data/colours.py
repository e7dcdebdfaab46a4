"""Colours for the classes of data that have none of their own."""

from __future__ import annotations

import colorsys
import math


def colours(count: int) -> tuple[str, ...]:
    """As many colours, far apart on the wheel."""
    golden = (math.sqrt(5) - 1) / 2
    wheel = (colorsys.hls_to_rgb(number * golden % 1.0, 0.45 + 0.15 * (number % 2), 0.6) for number in range(count))
    return tuple("#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in wheel)
