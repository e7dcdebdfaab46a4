"""Write the table of data sets in docs/data.md, from the facts that readers use: what is not there is not claimed.

python tools/sets_table.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from satdifuser.config import config_root
from satdifuser.data.bands import find_sensor
from satdifuser.data.classes import ClassTable
from satdifuser.yaml_file import load_yaml

PAGE = Path(__file__).resolve().parent.parent / "docs" / "data.md"
BEGIN, END = "<!-- made by tools/sets_table.py -->", "<!-- end -->"
HEAD = """| set | task | sensor, bands | px | train/val/test | licence, as stated | how to get it |
| --- | --- | --- | --- | --- | --- | --- |"""
KINDS = {
    "torchgeo": "data=torchgeo data.dataset=",
    "geobench": "data=geobench data.task=",
    "geobench2": "data=geobench2 data.task=",
    "named": "data=",
}
TASKS = {"label": "class", "multilabel": "multi-label", "mask": "segmentation", "target": "regression", None: "images"}


def sets() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Kind, name and facts of every set."""
    for kind in KINDS:
        for file in sorted((config_root() / "facts" / kind).glob("*.yaml"), key=lambda path: path.stem.lower()):
            facts = load_yaml(file)
            own = load_yaml(config_root() / "data" / f"{file.stem}.yaml") if kind == "named" else {}
            yield kind, file.stem, {**own, **facts}


def row(name: str, facts: Mapping[str, Any]) -> str:
    bands = find_sensor(facts["sensor"])
    cells = (
        f"`{name}`",
        _task(facts),
        f"{bands.name.partition(':')[0]}, {len(bands)}",
        str(facts["size"]),
        facts.get("samples") or _splits(facts.get("parts")),
        facts.get("licence") or "?",
        facts["get"],
    )
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _task(facts: Mapping[str, Any]) -> str:
    label, classes = facts.get("label"), facts.get("classes")
    series = ", dates" if any(facts.get(key) for key in ("series", "times", "when", "dates")) else ""
    if label in (None, "target") or not classes:
        return TASKS[label] + series
    count = "" if isinstance(classes, str) else f" {len(ClassTable(classes).labels.classes)}"
    return f"{TASKS[label]}{count}{series}"


def _splits(parts: Mapping[str, Any] | None) -> str:
    """In words, what train, val and test are."""
    if not parts:
        return "held out by a hash"
    if any("share" in part for part in parts.values()):
        return "its own, and a share by a hash"
    return "its own"


def table() -> str:
    lines: list[str] = []
    for kind, words in KINDS.items():
        lines += ["", f"### `{words}...`", HEAD]
        lines += [row(name, facts) for found, name, facts in sets() if found == kind]
    return "\n".join(lines) + "\n"


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
