"""What a command for scenes gives back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """`paths` are the files that are there now, none while other parts are at work (`finished` is False then).

    `windows` lie in this part's share, of which some were there before or hold no data: `computed` is how many were
    gone through the model. `pixels` are the scene's in the units that were written.
    """

    paths: tuple[str, ...]
    windows: int
    computed: int
    seconds: float
    finished: bool
    pixels: int = 0
