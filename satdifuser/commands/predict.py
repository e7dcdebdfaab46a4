"""`satdifuser predict`: a run's head over whole scenes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from satdifuser.commands.table import Launch
    from satdifuser.settings.scenes import PredictSettings

FILES = (".tif", ".tiff", ".zarr", ".parquet")


def run(settings: PredictSettings, launch: Launch) -> list[str]:
    """Map one scene into a file, or many into a folder; gives the paths of what is there now."""
    from satdifuser.engine.memory import keep_memory
    from satdifuser.engine.progress import say
    from satdifuser.scenes.find import find_scenes
    from satdifuser.scenes.flow import bound_cache
    from satdifuser.scenes.predict.flow import predict

    keep_memory()
    bound_cache()
    found = find_scenes(settings.scene, settings.reading.bands)
    if len(found) > 1 or settings.parts > 1 or Path(settings.out).suffix.lower() not in FILES:
        from satdifuser.scenes.many.flow import many

        return many("predict", settings, found, launch, predict)
    done = predict(settings, found[0])
    if done.finished:
        rate = f", {done.computed / done.seconds:.1f} a second" if done.computed else ""
        say(f"wrote {', '.join(done.paths)}: {done.computed} of {done.windows} windows computed{rate}")
    return list(done.paths)
