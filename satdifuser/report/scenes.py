"""A scene and its maps by each model, as pictures in the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from satdifuser.report import ranking
from satdifuser.report.content import Section
from satdifuser.report.pictures import Pictures, png
from satdifuser.report.ranking import Place


@dataclass(frozen=True)
class Shown:
    """A picture and its name; or in `alt` why there is none."""

    name: str
    alt: str
    picture: str = ""


def scene_pictures(section: Section, found: Sequence[Place], pictures: Pictures) -> list[Shown]:
    """The scene first, then maps in the order of the ranking."""
    scene = section.scene
    if scene is None:
        return []
    order = [place.row.model for place in ranking.largest(found, section.name)]
    models = sorted(
        {*scene.maps, *scene.errors}, key=lambda one: (order.index(one) if one in order else len(order), one)
    )
    shown = [Shown(f"scene ({scene.told})", f"{scene.name}: the scene ({scene.told})", png(scene.picture))]
    for model in models:
        if model in scene.maps:
            shown.append(Shown(model, f"{scene.name}: the map of {model}", png(scene.maps[model])))
        else:
            shown.append(Shown(model, f"No map: {scene.errors[model]}"))
    return [
        one if not one.picture or pictures.take([one.picture]) else Shown(one.name, "Left out to keep this file small")
        for one in shown
    ]
