"""Write docs/settings.md: every setting of every command and group, from where they are checked and said.

python tools/settings_reference.py
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from satdifuser.cli import COMMANDS as SUMMARIES
from satdifuser.config import config_root, groups
from satdifuser.help import Described, described
from satdifuser.settings.by_command import COMMANDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
HEAD = """# Every setting
This page is made by `python tools/settings_reference.py`, from the YAML in `configs/` (defaults and sentences) and from
the classes that read it (what a setting can be). `satdifuser train --help fusion=moe` prints the same for one choice.

A value that a setting cannot have is refused at once, by name: `trainer.lr is nan: it must be a number above 0`. No
number may be NaN or infinite. A bare `no` in YAML is `false`; write `"no"` for the word.
"""
OF = {"store": "extract", "unet": "pretrain", "probe": "probe", "cka": "cka"}  # a group's command, if not train
SKIPPED = ("experiment", "hydra")


def page() -> str:
    parts = [HEAD]
    for command in COMMANDS:
        found = described(command)
        parts.append(f"## satdifuser {command}\n{SUMMARIES[command].summary}.\n")
        for group, rows in found.items():
            if "=" not in group:
                parts.append(table(group, rows))
        text = (config_root() / f"{command}.yaml").read_text(encoding="utf-8")
        chosen = [name for name in re.findall(r"^\s+- (\w+): ", text, flags=re.M) if name not in SKIPPED]
        if chosen:
            parts.append(f"Its groups: {', '.join(f'[`{name}`](#{name})' for name in chosen)}.\n")
    for group, names in groups().items():
        if group in SKIPPED:
            continue
        parts.append(f"## {group}\n")
        for name in names:
            parts.append(f"### {group}={name}\n")
            rows = of_choice(group, name)
            parts.append(table("", rows) if rows else "It has no settings.\n")
    return "\n".join(parts)


def of_choice(group: str, name: str) -> list[Described]:
    command = OF.get(group, "train")
    words = [f"{group}={name}", *(["encoder=small_vit"] if group == "adapter" else [])]
    found = described(command, words)
    if group == "adapter":
        return [row for row in found["encoder=small_vit"] if row.name.startswith("encoder.adapter.")]
    return found.get(f"{group}={name}", [])


def table(group: str, rows: Sequence[Described]) -> str:
    first = f"`{group}` " if group else "setting"
    lines = [f"| {first.strip()} | default | can be | |", "| --- | --- | --- | --- |"]
    lines += [f"| `{r.name}` | `{r.default}` | {cell(r.kind)} | {cell(r.sentence)} |" for r in rows]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args()
    arguments.out.write_text(page(), encoding="utf-8")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
