"""Which samples are shown, and each of them as a card: its picture, its mask, what it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from satdifuser.data.bands import Sensor
from satdifuser.data.base import LabelledDataset, Labels, Sample
from satdifuser.data.check.alone import as_far_as_it_goes
from satdifuser.data.check.pictures import (
    SHOWN,
    Shot,
    Stretch,
    dates_of,
    label_words,
    mask_picture,
    shot,
    target_picture,
)
from satdifuser.data.check.seen import Look, Seen
from satdifuser.data.splits.evenly import evenly
from satdifuser.data.statistics import Array

DATES = 4  # of a series that are shown


@dataclass
class Card:
    """`pictures` are (what it is, pixels); the last one is the mask where there is one. `shots` are yet to be drawn."""

    name: str
    split: str
    words: str
    pictures: list[tuple[str, Array]] = field(default_factory=list)
    shots: list[tuple[str, Shot]] = field(default_factory=list)


@dataclass
class Gallery:
    """What is shown: cards by group, those of samples that findings name, and how pictures are drawn, in words."""

    groups: dict[str, list[Card]]
    named: dict[str, Card]
    told: str


def gallery(groups: dict[str, list[Card]], named: dict[str, Card], sensor: Sensor) -> Gallery:
    """Draw all cards with one stretch, so that they can be compared."""
    every = list(
        {id(card): card for card in [*named.values(), *(c for cards in groups.values() for c in cards)]}.values()
    )
    stretch = Stretch.of((one for card in every for _, one in card.shots), sensor)
    for card in every:
        card.pictures[:0] = [(what, stretch.paint(one)) for what, one in card.shots]
        card.shots = []
    return Gallery(groups, named, stretch.told)


def chosen(look: Look, shown: int) -> dict[str, list[str]]:
    """Group -> some of its samples: of each class, or of all where there are none."""
    names = look.labels.classes
    if names and any(one.classes is not None for one in look.seen):
        groups = {}
        for number, name in enumerate(names):
            having = [one for one in look.seen if one.classes is not None and one.classes[number]]
            if having and having[0].mask is not None:
                having = sorted(having, key=lambda one: -_share(one, number))[: max(shown, len(having) // 4)]
            groups[name] = [one.name for one in evenly(having, shown)]
        return {name: ids for name, ids in groups.items() if ids}
    having = [one for one in look.seen if one.target is not None and one.target.size]
    having.sort(key=lambda one: float(np.mean(one.target if one.target is not None else 0)))
    seen = having or look.seen
    count = min(len(seen), 3 * shown)
    places = sorted({round(place * (len(seen) - 1) / max(count - 1, 1)) for place in range(count)})
    return {"from the lowest target to the highest" if having else "": [seen[place].name for place in places]}


def _share(one: Seen, number: int) -> float:
    assert one.classes is not None
    return float(one.classes[number]) / max(int(np.prod(one.mask or (1,))), 1)


def cards(data: LabelledDataset, split: str, names: Iterable[str], sensor: Sensor) -> dict[str, Card]:
    """Read these samples again, as far as it goes; one whose image cannot be read has no card."""
    wanted, found = set(names), {}
    places = {data.sample_id(index): index for index in range(len(data))} if wanted else {}
    for name in wanted & places.keys():
        sample = as_far_as_it_goes(data, places[name])
        if sample is not None and sample["image"].shape[-3] == len(sensor):
            found[name] = card(sample, split, data.labels, sensor)
    return found


def card(sample: Sample, split: str, labels: Labels, sensor: Sensor) -> Card:
    made = Card(str(sample["id"]), split, label_words(sample, labels))
    image, dates = sample["image"], dates_of(sample)
    if dates:
        for number, day in evenly(dates, DATES):
            made.shots.append((day or f"image {number + 1}", shot(image[number], sensor, SHOWN)))
    else:
        made.shots.append(("image", shot(image if image.ndim == 3 else image[0], sensor, SHOWN)))
    if "mask" in sample:
        made.pictures.append(("mask", _every(mask_picture(sample["mask"], labels))))
    if "target" in sample and sample["target"].ndim == 2:
        pixels, span = target_picture(sample["target"])
        made.pictures.append((f"target {span}", _every(pixels)))
    return made


def _every(pixels: Array) -> Array:
    """Every n-th pixel: a mean of two classes is none."""
    step = -(-max(pixels.shape[:2]) // SHOWN)
    return np.ascontiguousarray(pixels[::step, ::step])


def sheet(groups: Mapping[str, Sequence[Card]], labels: Labels, side: int = 96) -> Array:
    """A contact sheet: a row for each group, pictures and masks side by side; `[H, W, 3]`."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(12)
    rows = [(name, [p for one in cards for p in one.pictures]) for name, cards in groups.items() if cards]
    most = max((len(pictures) for _, pictures in rows), default=1)
    gap, words = 4, 150
    canvas = Image.new("RGB", (words + most * (side + gap), max(1, len(rows)) * (side + gap)), "white")
    draw = ImageDraw.Draw(canvas)
    colours = dict(zip(labels.classes, labels.colours, strict=True))
    for row, (name, pictures) in enumerate(rows):
        top = row * (side + gap)
        plain = name.rpartition(": ")[2]
        if plain in colours:
            draw.rectangle((4, top + 6, 16, top + 18), fill=colours[plain], outline="#777")
        for number, line in enumerate(_wrapped(name, 18)):
            draw.text((22, top + 4 + 15 * number), line, fill="black", font=font)
        for column, (_, pixels) in enumerate(pictures):
            tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(tile, (words + column * (side + gap), top))
    return np.asarray(canvas)


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)[:5]
