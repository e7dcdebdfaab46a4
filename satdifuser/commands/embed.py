"""`satdifuser embed`: features of whole scenes, as georeferenced rasters of vectors or tables of tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from satdifuser.commands.table import Launch
    from satdifuser.settings.scenes import EmbedSettings


def run(settings: EmbedSettings, launch: Launch) -> list[str]:
    """Embed one scene into a file, or many into a folder; gives the paths of what is there now."""
    from satdifuser.scenes.embed.flow import embed
    from satdifuser.scenes.many.flow import carry_out

    return carry_out("embed", settings, launch, embed)
