"""Errors that a user can make and mend: one line that says what, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from satdifuser.optional import missing


class UserError(Exception):
    """Bad input or configuration. The command line prints the message alone, without a traceback."""


def expected(error: BaseException) -> bool:
    """Whether it is one that a user can mend (`bank.py` stands alone, and has an error of its own)."""
    return isinstance(error, UserError) or type(error).__name__ == "BankError" or missing(error) is not None


def one_line(error: BaseException) -> str:
    """What an error says, with its kind where it is not one that was written for the user.

    >>> one_line(UserError("no data: give a folder")), one_line(KeyError("a"))
    ('no data: give a folder', "KeyError: 'a'")
    """
    if expected(error):
        return " ".join((missing(error) or str(error)).split())
    return f"{type(error).__name__}: {error}".splitlines()[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error about an unknown name, or nothing.

    >>> nearest("upper", ["linear", "upernet"])
    '; did you mean upernet?'
    >>> nearest("zzz", ["linear"])
    ''
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
