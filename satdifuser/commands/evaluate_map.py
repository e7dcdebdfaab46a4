"""`satdifuser evaluate-map`: accuracy and areas of a map, with intervals."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from satdifuser.scenes.accuracy.flow import Evaluated
    from satdifuser.settings.scenes import EvaluateMapSettings


def run(settings: EvaluateMapSettings) -> Evaluated:
    """Print what was found, and write the report if a folder is given."""
    from satdifuser.data.files.names import shown
    from satdifuser.engine.progress import say
    from satdifuser.errors import UserError
    from satdifuser.scenes.accuracy.files import FILES, write
    from satdifuser.scenes.accuracy.flow import evaluate
    from satdifuser.scenes.accuracy.tables import show

    folder = None if settings.output is None else Path(settings.output).expanduser()
    if folder is not None and not settings.overwrite:
        there = next((name for name in FILES if (folder / name).exists()), None)
        if there is not None:
            raise UserError(
                f"output {shown(folder)} has a report already ({there}): give overwrite=true, or another folder"
            )
    done = evaluate(settings)
    show(done)
    if folder is not None:
        write(done, folder, shlex.join(["satdifuser", "evaluate-map", *_words(settings)]))
        say(f"wrote {shown(folder)}: {', '.join(FILES)}")
    return done


def _words(settings: EvaluateMapSettings) -> list[str]:
    """What was chosen, as it is typed."""
    chosen = [str(settings.map), str(settings.reference)]
    usual = type(settings)(map=settings.map, reference=settings.reference)
    for name, value in vars(settings).items():
        if name not in ("map", "reference", "output", "overwrite") and value != getattr(usual, name):
            chosen.append(f"{name}={_typed(value)}")
    return chosen


def _typed(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {'null' if one is None else one}" for key, one in value.items()) + "}"
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)
