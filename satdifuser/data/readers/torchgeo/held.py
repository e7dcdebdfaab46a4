"""What a root of a class of torchgeo must hold, as far as the class itself names it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

NAMES = (
    *("directory", "directories", "data_root", "dataset_root", "base_dir", "base_folder", "image_root", "img_dir"),
    *("filename", "filenames", "files", "zipfile", "zipfilename", "archives", "metadata", "file_info"),
    *("md5s", "url", "urls", "filename_glob"),
)
"""Attributes of the classes, folders first."""
DESCRIBED = ("metadata", "file_info")  # of which other words are no names
SUM = re.compile(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}")
MOST = 8


def held_by(cls: type[Any]) -> str:
    """The names of folders and files that a class has, for the line that says that they are not there."""
    found = list(dict.fromkeys(name for word in NAMES for name in _in(getattr(cls, word, None), word)))
    if not found:
        return "what torchgeo's documentation of it says, for the class names no files"
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return f"what torchgeo's class names ({', '.join(found[:MOST])}{more})"


def _in(value: Any, word: str) -> Iterator[str]:
    """Names of files in an attribute: not their sums, and of an address its end."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if word == "md5s" and isinstance(key, str) and "." in key:
                yield key
            elif word not in DESCRIBED or not isinstance(inner, str) or key in NAMES:
                yield from _in(inner, word)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _in(inner, word)
    elif isinstance(value, str):
        name = value.partition("?")[0].rstrip("/").rpartition("/")[2] if "://" in value else value
        if name.strip("*.") and not SUM.fullmatch(name) and ("://" not in value or _is_file(name)):
            yield name


def _is_file(name: str) -> bool:
    """Whether the end of an address is a name of a file, and not one to be filled in."""
    return re.fullmatch(r"[\w-][\w.+-]*\.[A-Za-z][A-Za-z0-9]{1,6}", name) is not None
