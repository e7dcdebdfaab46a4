"""docs/python.md and the examples beside it, run as they stand."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from satdifuser.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_every_block_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((DOCS / "python.md").read_text(encoding="utf-8"))
    assert [kind for kind, _ in blocks].count("python") == 8
    names: dict[str, Any] = {"__name__": "page"}
    for number, (kind, text) in enumerate(blocks):
        if kind == "python":
            exec(compile(text, f"block {number} of python.md", "exec"), names)
        for line in text.splitlines() if kind == "sh" else ():
            assert main(shlex.split(line)[1:]) == 0, line
    said = capsys.readouterr().out
    assert "encoder.timestep: DiffusionEncoder has no such setting; did you mean timesteps" in said
    assert "  head: 1,930" in said
    assert names["bank"].batch_size == 4
    assert names["logits"].shape == (2, 10)


def test_the_page_has_no_block_of_a_kind_that_is_not_run() -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(BLOCK.findall(text))


def test_the_plain_loop_runs(store: Path) -> None:
    example = runpy.run_path(str(DOCS / "examples" / "plain_loop.py"))
    assert 0.0 <= example["main"](str(store)) <= 1.0


@pytest.mark.slow
def test_the_lightning_module_runs(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(DOCS / "examples" / "lightning_module.py"))
    assert 0.0 <= example["main"](str(store), epochs=1) <= 1.0
