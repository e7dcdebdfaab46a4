"""`satdifuser predict`: a run's head over whole scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from satdifuser.commands.table import Launch
    from satdifuser.settings.scenes import PredictSettings


def run(settings: PredictSettings, launch: Launch) -> list[str]:
    """Map one scene into a file, or many into a folder; gives the paths of what is there now."""
    from satdifuser.scenes.many.flow import carry_out
    from satdifuser.scenes.predict.flow import predict

    return carry_out("predict", settings, launch, predict)
