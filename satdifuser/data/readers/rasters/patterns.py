"""Patterns of names: which files are images, and which other file belongs to each.

`*` and `?` stand for letters of a name, `**` for folders of any depth, `{id}`, `{split}` and `{class}` for letters that
are the same in several patterns. Stars of two patterns are tied in their order: images/*.tif and masks/*.png. Behind a
file of HDF5 stands its data set: files/*.h5:image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from satdifuser.data.files.arrays import HDF5
from satdifuser.data.files.names import name_fault, shown
from satdifuser.data.splits.given import USUAL
from satdifuser.errors import UserError, nearest

WILD = re.compile(r"\*\*/|\*\*|\*|\?|\{[^{}/]*\}")
PLACEHOLDERS = ("id", "split", "class")
LOOKED_AT = 10000  # files, for one that a pattern that matches none may have meant
KEYED = re.compile(rf"^(.*(?:{'|'.join(map(re.escape, HDF5))})):([^:]+)$", re.IGNORECASE)
Fields = Mapping[str, str]
MISSING = "add it, or leave the sample out with data.exclude"


@dataclass(frozen=True)
class Pattern:
    """
    >>> Pattern.of("data.images", "train/{id}_*.tif").match("train/a_1.tif")
    {'id': 'a', '*1': '1'}
    """

    setting: str
    text: str
    path: str
    key: str | None
    fields: tuple[str, ...]
    regex: re.Pattern[str]

    @classmethod
    def of(cls, setting: str, text: str) -> Pattern:
        keyed = KEYED.match(text)
        path, key = keyed.groups() if keyed else (text, None)
        path = os.path.normpath(path)
        if path.startswith(("/", "..")):
            raise UserError(f"{setting} is {text!r}: a pattern is below data.root, so set that to a folder above")
        fields: list[str] = []
        parts, end = [], 0
        for wild in WILD.finditer(path):
            name = wild.group()[1:-1]
            if wild.group().startswith("{") and name not in PLACEHOLDERS:
                raise UserError(
                    f"{setting} is {text!r}, and {{{name}}} is no placeholder: there is {', '.join(PLACEHOLDERS)} (and"
                    f" * for what need not be named){nearest(name, PLACEHOLDERS)}"
                )
            parts.append(re.escape(path[end : wild.start()]))
            parts.append(_part(wild.group(), fields))
            end = wild.end()
        parts.append(re.escape(path[end:]))
        return cls(setting, text, path, key, tuple(fields), re.compile("".join(parts)))

    def match(self, path: str) -> dict[str, str] | None:
        found = self.regex.fullmatch(path)
        return None if found is None else {field: found.group(_group(field)) or "" for field in self.fields}

    def found(self, root: Path) -> dict[str, dict[str, str]]:
        """Path below the root -> what its fields are, sorted; an error where there is none."""
        wild = WILD.search(self.path)
        fixed = self.path if wild is None else self.path[: wild.start()]
        start = fixed.rpartition("/")[0] if wild else fixed
        if wild is None:
            found = {self.path: dict[str, str]()} if (root / self.path).is_file() else {}
        else:
            depth = None if "**" in self.path else self.path.count("/")
            matched = ((path, self.match(path)) for path in sorted(_files(root, start, depth)))
            found = {path: fields for path, fields in matched if fields is not None}
        if not found:
            where = root / start
            there = sorted(path.name for path in where.iterdir())[:5] if where.is_dir() else []
            said = f"{shown(where)} has {', '.join(map(shown, there)) or 'nothing'}" if where.is_dir() else ""
            raise UserError(
                f"{self.setting}={self.text} matches no file below data.root {shown(root)}: "
                + (said or f"there is no folder {shown(start)} in it")
                + f"; {self._deeper(root, start) or 'set the pattern to how the files are called'}"
            )
        odd = next((path for path in found if name_fault(path) is not None), None)
        if odd is not None:
            raise UserError(f"{shown(root / odd)} {name_fault(odd)}: rename it")
        return found

    def _deeper(self, root: Path, start: str) -> str | None:
        """A file in a folder that the pattern does not go into, and patterns that do; None where there is none."""
        name = self.path.rpartition("/")[2]
        paths = dict.fromkeys(["**/" + self.path, f"{start}/**/{name}" if start else f"**/{name}", f"**/{name}"])
        there = list(islice(_files(root, "", None), LOOKED_AT))
        for pattern in (Pattern.of(self.setting, path) for path in paths if path.count("**") == 1):
            found = next((path for path in there if pattern.match(path) is not None), None)
            if found is None:
                continue
            above = found.split("/")[pattern.path[: pattern.path.index("**")].count("/")]
            field = "split" if any(above.casefold() in words for words in USUAL.values()) else "class"
            named = Pattern.of(self.setting, pattern.path.replace("**", f"{{{field}}}"))
            ways = [pattern.path + ("" if self.key is None else f":{self.key}")]
            if field not in self.fields and named.match(found) and self.setting.startswith("data.images"):
                ways.append(named.path + ("" if self.key is None else f":{self.key}"))
            return f"{shown(found)} is there: try {' or '.join(ways)}"
        return None

    def beside(self, root: Path, first: Pattern, names: Mapping[str, Fields]) -> dict[str, str]:
        """Path of an image -> path of the file of this pattern that belongs to it, where there is one."""
        stars = [[field for field in one.fields if field.startswith("*")] for one in (self, first)]
        shared = [field for field in first.fields if field in self.fields]
        if stars[0] and len(stars[0]) != len(stars[1]):  # which star is which?
            shared = [field for field in shared if not field.startswith("*")]
        if not shared:
            raise UserError(
                f"{self.setting}={self.text} and {first.setting}={first.text} have no field in common, so which file"
                " belongs to which is not known: write the same {id} in both, as images/{id}.tif and masks/{id}.png"
            )
        by_key: dict[tuple[str, ...], str] = {}
        for path, fields in self.found(root).items():
            key = tuple(fields[field] for field in shared)
            if key in by_key:
                raise UserError(
                    f"{self.setting}={self.text} matches {shown(by_key[key])} and {shown(path)} for the same"
                    f" {', '.join(f'{f}={k}' for f, k in zip(shared, key, strict=True))}: make the pattern narrower"
                )
            by_key[key] = path
        keys = {path: tuple(fields[field] for field in shared) for path, fields in names.items()}
        return {path: by_key[key] for path, key in keys.items() if key in by_key}


def _group(field: str) -> str:
    return f"star{field[1:]}" if field.startswith("*") else field


def _part(wild: str, fields: list[str]) -> str:
    name = wild[1:-1] if wild.startswith("{") else ""
    if name and name in fields:
        return f"(?P={name})"
    field = name or f"*{1 + sum(known.startswith('*') for known in fields)}"
    fields.append(field)
    inner = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(wild, "[^/]+")
    return f"(?P<{_group(field)}>{inner})"


def _files(root: Path, below: str, depth: int | None) -> Iterator[str]:
    """Paths below the root of files that are not hidden; links to folders are followed, but no loops."""
    todo = [(below, frozenset[tuple[int, int]]())]
    while todo:
        folder, above = todo.pop()
        try:
            status = (root / folder).stat()
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except NotADirectoryError:
            continue
        except OSError as error:
            if folder == below:
                return
            raise UserError(f"{shown(root / folder)} cannot be listed ({error.strerror}): let it be read") from error
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        deeper = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                deeper += [(name, above | {here})] if depth is None or name.count("/") < depth else []
            elif depth is None or name.count("/") == depth:
                yield name
        todo += reversed(deeper)
