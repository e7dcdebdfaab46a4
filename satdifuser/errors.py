"""Errors that a user can make and mend: one line that says what, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input or configuration. The command line prints the message alone, without a traceback."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error about an unknown name, or nothing.

    >>> nearest("upper", ["linear", "upernet"])
    '; did you mean upernet?'
    >>> nearest("zzz", ["linear"])
    ''
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
