"""The table of sets is that of the facts there are, and every line of it is whole."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType


def test_the_table_is_made_of_the_facts_as_they_are(tool: Callable[[str], ModuleType]) -> None:
    sets = tool("sets_table")
    page = sets.PAGE.read_text(encoding="utf-8")
    assert f"{sets.BEGIN}\n{sets.table()}\n{sets.END}" in page, "run python tools/sets_table.py"


def test_every_set_says_what_it_is_and_how_to_get_it(tool: Callable[[str], ModuleType]) -> None:
    sets = tool("sets_table")
    kinds = [kind for kind, _, _ in sets.sets()]
    assert {kind: kinds.count(kind) >= least for kind, least in (("torchgeo", 22), ("geobench", 12), ("geobench2", 18))}
    for kind, name, facts in sets.sets():
        cells = sets.row(name, facts).strip("| ").split(" | ")
        assert len(cells) == 7, (kind, name)
        assert all(cell.strip() for cell in cells), (kind, name)
