"""Which commit of this project's source a result was made with."""

from __future__ import annotations

import functools
import json
import subprocess
from importlib import metadata
from pathlib import Path

CHANGED = "+changes"  # after a commit whose files were not those that ran


@functools.cache
def commit() -> str | None:
    """The commit of the checkout that this package runs from, or that pip installed it from; None where nobody knows.

    `+changes` follows where a tracked file of the package differs from that commit.
    """
    here = Path(__file__).resolve().parents[1]
    # A package in site-packages may lie in somebody else's checkout, which does not track it.
    if _git(here, "ls-files", "--error-unmatch", "__init__.py") is not None and (
        found := _git(here, "rev-parse", "HEAD")
    ):
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ".")
        return found[:12] + (CHANGED if changed else "")
    try:
        known = json.loads(metadata.distribution("satdifuser").read_text("direct_url.json") or "{}")
        return str(known["vcs_info"]["commit_id"])[:12]
    except (metadata.PackageNotFoundError, KeyError, TypeError, ValueError):
        return None


def _git(folder: Path, *words: str) -> str | None:
    """What git says, or None where it refuses or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
