"""`satdifuser embed`: features of whole scenes, as georeferenced rasters of vectors or tables of tiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from satdifuser.commands.table import Launch
    from satdifuser.settings.scenes import EmbedSettings

FILES = (".zarr", ".tif", ".tiff", ".parquet")


def run(settings: EmbedSettings, launch: Launch) -> list[str]:
    """Embed one scene into a file, or many into a folder; gives the paths of what is there now."""
    from satdifuser.engine.memory import keep_memory
    from satdifuser.engine.progress import say
    from satdifuser.scenes.embed.flow import embed
    from satdifuser.scenes.find import find_scenes

    keep_memory()
    found = find_scenes(settings.scene, settings.reading.bands)
    if len(found) > 1 or settings.parts > 1 or Path(settings.out).suffix.lower() not in FILES:
        from satdifuser.scenes.many.flow import many

        return many("embed", settings, found, launch, embed)
    done = embed(settings, found[0])
    if done.finished:
        rate = f", {done.computed / done.seconds:.1f} a second" if done.computed else ""
        say(f"wrote {', '.join(done.paths)}: {done.computed} of {done.windows} windows computed{rate}")
    return list(done.paths)
