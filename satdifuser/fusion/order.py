"""The order in which the released code has the taps of a stride; ours is that of computation."""

from __future__ import annotations

import re
from collections.abc import Iterable

WALKED = re.compile(r"up_blocks\.(\d+)\.(?:.*\.)?(attn1|conv2)")


def released_order(names: Iterable[str]) -> tuple[str, ...]:
    """Tap names (in the order of computation) in that of the released code: block by block, attn1 before conv2.

    Taps that it does not know stay in the order of computation behind those that it does.

    >>> released_order(["mid_block", "up_blocks.1.resnets.0.conv2", "up_blocks.1.attentions.0.attn1"])
    ('up_blocks.1.attentions.0.attn1', 'up_blocks.1.resnets.0.conv2', 'mid_block')
    """

    def place(name: str) -> tuple[bool, int, str]:
        found = WALKED.fullmatch(name)
        return (True, 0, "") if found is None else (False, int(found[1]), found[2])

    return tuple(sorted(names, key=place))
