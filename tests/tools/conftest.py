"""The scripts of tools/ as modules: they import each other by their plain names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script by its name: `tool("bench_extract")`."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module
