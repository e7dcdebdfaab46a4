"""How something is made again, as a user types it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def command_line(
    command: str, overrides: Sequence[str], config_dirs: Sequence[str] = (), trust: Sequence[str] = ()
) -> str:
    """
    >>> command_line("data show", ["data=mine", "output=a b"], ["my_configs"], ["mine"])
    "satdifuser data show --config-dir my_configs --trust mine data=mine 'output=a b'"
    """
    options = [("--config-dir", folder) for folder in config_dirs] + [("--trust", package) for package in trust]
    return shlex.join(["satdifuser", *command.split(), *(word for option in options for word in option), *overrides])
