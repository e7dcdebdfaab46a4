"""The page of all settings is that of the settings there are."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


def test_the_page_is_made_of_the_settings_as_they_are(
    tool: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIFFUSIONSAT_WEIGHTS", raising=False)
    reference = tool("settings_reference")
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run python tools/settings_reference.py"
