"""Names of files: which can be ids, and how those are shown that would not print."""

from __future__ import annotations

import os
import unicodedata


def shown(name: str | os.PathLike[str]) -> str:
    r"""A name in one line of valid text, with escapes for what no terminal, file or JSON should get.

    >>> print(shown("a b(ü)=^'.png"), shown("two\nlines.png"), shown(os.fsdecode(b"caf\xe9.png")))
    a b(ü)=^'.png two\nlines.png caf\xe9.png
    """
    text = os.fspath(name)
    if text.isprintable():
        return text
    return "".join(_escaped(letter) if _odd(letter) else letter for letter in text)


def name_bytes(name: str) -> bytes:
    """The bytes of a name as the disk has them, whatever they are."""
    return name.encode("utf-8", "surrogateescape")


def name_fault(name: str) -> str | None:
    r"""Why a name cannot be an id; None if it can.

    >>> name_fault("forest/tile (1).png"), name_fault("tab\t.png")
    (None, 'has control characters in its name')
    """
    if name.isprintable():
        return None
    if any(unicodedata.category(letter) == "Cs" for letter in name):
        return "has a name that is not UTF-8"
    return "has control characters in its name" if any(map(_odd, name)) else None


def _odd(letter: str) -> bool:
    """Control codes, what is no character at all, and the ends of lines and paragraphs."""
    return not letter.isprintable() and unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that Python could not decode
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")
