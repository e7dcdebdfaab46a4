"""The report on a map's accuracy as files."""

from __future__ import annotations

import json
from pathlib import Path

from satdifuser.engine.files import write_text
from satdifuser.scenes.accuracy.flow import Evaluated
from satdifuser.scenes.accuracy.page import html
from satdifuser.scenes.accuracy.tables import as_csv, class_rows, matrix_rows, plain

FILES = ("accuracy.json", "classes.csv", "matrix.csv", "accuracy.html")


def write(done: Evaluated, folder: Path, command: str = "") -> list[Path]:
    """Each of them whole or not at all."""
    values = plain(done)
    texts = (
        json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        as_csv(class_rows(values)),
        as_csv(matrix_rows(done)),
        html(done, command),
    )
    return [write_text(folder / name, text) for name, text in zip(FILES, texts, strict=True)]
