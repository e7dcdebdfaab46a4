"""`satdifuser data check | stats | show`: what a reader sees, before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satdifuser.errors import UserError, nearest
from satdifuser.report.repeat import command_line

if TYPE_CHECKING:
    from satdifuser.data.base import LabelledDataset
    from satdifuser.data.check import Checked, Finding
    from satdifuser.data.check.gallery import Card, Gallery
    from satdifuser.data.inputs import SampleCheck
    from satdifuser.settings.commands import DataSettings

FOLDER = "data-samples"  # of data show, where no other is named
DEFAULT = "synthetic"  # data of configs/data.yaml
PARTS = ("task", "dataset")  # settings that choose a set of a family
PLAIN = ("rasters", "image_folder")  # readers of anybody's own files
TABLE = ("mean", "std", "min", "p1", "p50", "p99", "max")


def run(verb: str, settings: DataSettings, overrides: Sequence[str] = (), command: str = "") -> int:
    """Give the exit code: 1 where a check has found an error; `command` is the line that a user has typed."""
    words = {"check": _check, "stats": _stats, "show": _show}
    return words[verb](settings, Asked(command or command_line(f"data {verb}", overrides), _choice(overrides)))


@dataclass(frozen=True)
class Asked:
    """What was typed, and the data's name in it."""

    command: str
    data: str

    def called(self, settings: DataSettings) -> str:
        """What the user calls the set: its file's name, with the set of a family, or with the folder of his own.

        >>> from satdifuser.config import compose
        >>> Asked("", "synthetic").called(compose("data", []))
        'synthetic'
        """
        known = settings.data.settings
        part = next((known[name] for name in PARTS if isinstance(known.get(name), str)), "")
        root = known.get("root")
        if self.data in PLAIN and isinstance(root, str):
            part = Path(root).expanduser().resolve().name
        return f"{self.data}: {part}" if part and part != self.data else self.data


def _choice(overrides: Sequence[str]) -> str:
    chosen = [word.partition("=")[2].strip("'\"") for word in overrides if word.startswith("data=")]
    return chosen[-1] if chosen else DEFAULT


def _splits(settings: DataSettings, names: Sequence[str] | None = None) -> dict[str, LabelledDataset]:
    names = names or settings.splits or list(settings.data.splits)
    for name in names:
        if name not in settings.data.splits:
            known = settings.data.splits
            raise UserError(f"splits has {name!r}: the data have {', '.join(known)}{nearest(name, known)}")
    return {name: settings.data.split(name) for name in names}


def _those_that_open(settings: DataSettings) -> tuple[dict[str, LabelledDataset], list[Finding]]:
    """The splits, and what is wrong with those that cannot be had; an error where none can."""
    from satdifuser.data.check import Finding

    splits, lost = dict[str, Any](), list[Finding]()
    for name in settings.splits or settings.data.splits:
        try:
            splits |= _splits(settings, [name])
        except UserError as error:
            if name not in settings.data.splits:
                raise
            lost.append(Finding("error", "split", str(error), name))
    if not splits:
        raise UserError(lost[0].what)
    return splits, lost


def encoder_check(settings: DataSettings) -> SampleCheck | None:
    """What the encoder's settings say of its input; no weights are read."""
    from satdifuser.data.inputs import ImageInput, SampleCheck
    from satdifuser.data.policy import resolved

    if settings.encoder is None:
        return None
    encoder = resolved(settings.encoder, settings.data)
    prepare = encoder.get("prepare")
    made = None if prepare is None else prepare.build()
    if not isinstance(made, ImageInput):
        raise UserError(f"encoder={encoder.label} does not say its input in `prepare`: leave encoder out")
    backbone: Any = encoder.get("backbone") or {}
    side: Any = encoder.get("image_size") or backbone.get("image_size")
    return SampleCheck(made, (side, side) if isinstance(side, int) else None)  # type: ignore[arg-type]


def _check(settings: DataSettings, asked: Asked) -> int:
    from satdifuser.data.check import check
    from satdifuser.data.check.findings import in_order
    from satdifuser.data.check.page import Page, html
    from satdifuser.engine.files import json_text, write_text
    from satdifuser.engine.progress import say
    from satdifuser.report.tables import csv

    splits, lost = _those_that_open(settings)
    found = check(splits, encoder_check(settings), settings.samples, settings.workers)
    found.findings = in_order([*lost, *_weights(settings, found), *found.findings])
    if settings.format == "json":
        print(json_text(found.to_dict(), indent=2))
    elif settings.format == "csv":
        rows = [[f.verdict, f.name, f.where, f.what, f.todo] for f in found.findings]
        print(csv(["verdict", "name", "where", "what", "what to do"], rows), end="")
    else:
        print(_summary(found))
        for line in found.lines():
            print(line)
    if settings.output is not None:
        folder = Path(settings.output)
        drawn = _gallery(settings, splits, found)
        page = html(Page(f"Check of {asked.called(settings)}", asked.command, drawn, found, found.findings))
        write_text(folder / "data.html", page)
        write_text(folder / "data.json", json_text(found.to_dict(), indent=2) + "\n")
        say(f"wrote {folder}: data.html, data.json")
    return 1 if found.verdict == "error" else 0


def look_first(data: LabelledDataset, encoder: SampleCheck | None, workers: int, tell: bool) -> None:
    """Before a long extraction: print what looks wrong in a few samples, and end where something is."""
    from satdifuser.data.check import first_look
    from satdifuser.data.check.seen import sensor_of
    from satdifuser.engine.progress import say

    if sensor_of(
        next(iter(getattr(data, "splits", {"": data}).values())), None if encoder is None else encoder.prepare
    ):
        found = first_look({"images": data}, encoder, workers)
        for finding in found.findings if tell else ():
            if finding.verdict == "warning":
                say(finding.line())
        errors = [finding for finding in found.findings if finding.verdict == "error"]
        if errors:
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            raise UserError(
                f"{errors[0].line().removeprefix('error').strip()}{more}; satdifuser data check says all of it, and"
                " check_data=false goes on"
            )


def _weights(settings: DataSettings, found: Checked) -> list[Finding]:
    """What weights in a folder say of the inputs that they were trained on."""
    from satdifuser.data.check.inputs import pretrained

    backbone: Any = (settings.encoder.get("backbone") if settings.encoder is not None else None) or {}
    weights = backbone.get("weights")
    if found.prepare is None or not isinstance(weights, str):
        return []
    return list(pretrained(found.prepare, Path(weights).expanduser()))


def _summary(found: Checked) -> str:
    counts = {verdict: sum(f.verdict == verdict for f in found.findings) for verdict in ("error", "warning")}
    said = ", ".join(f"{number} {word}{'' if number == 1 else 's'}" for word, number in counts.items() if number)
    splits = ", ".join(f"{look.name} {look.total}" for look in found.looks)
    return f"{found.sensor.name} ({splits}): {said or 'nothing looks wrong'}"


def _stats(settings: DataSettings, asked: Asked) -> int:
    from satdifuser.data.check.seen import sensor_of
    from satdifuser.data.statistics import ERROR, rows_of, tally_of
    from satdifuser.engine.files import json_text, write_text
    from satdifuser.engine.progress import say
    from satdifuser.report.tables import csv, show

    encoder = encoder_check(settings) if settings.encoder is not None else None
    table: list[dict[str, Any]] = []
    for name, data in _splits(settings, settings.splits or ["train"]).items():
        sensor = sensor_of(data, None if encoder is None else encoder.prepare)
        if sensor is None:
            raise UserError(f"{data.name} does not say its bands: give its class a `sensor`, or choose an encoder")
        tally, faults = tally_of(data, sensor, settings.samples, settings.workers)
        if faults:
            say(f"{name}: {len(faults)} samples could not be read, as: {faults[0]}")
        rows = rows_of(tally, sensor)
        table += [{"split": name, "samples": tally.samples, **row} for row in rows]
        if settings.format == "text":
            lines = [
                [row["band"], row["unit"], *(_number(row[key]) for key in TABLE), f"{row['no data']:.1%}"]
                for row in rows
            ]
            title = f"{name}: {tally.samples} of {len(data)} samples; percentiles to {ERROR:.2%} of their size"
            show(title, ["band", "unit", *TABLE, "no data"], lines)
    written = csv(list(table[0]), [list(row.values()) for row in table])
    as_json = json_text({"command": asked.command, "percentile error": ERROR, "bands": table}, indent=2)
    if settings.format != "text":
        print(as_json if settings.format == "json" else written, end="\n" if settings.format == "json" else "")
    if settings.output is not None:
        folder = Path(settings.output)
        write_text(folder / "bands.csv", written)
        write_text(folder / "bands.json", as_json + "\n")
        say(f"wrote {folder}: bands.csv, bands.json")
    return 0


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _show(settings: DataSettings, asked: Asked) -> int:
    from PIL import Image

    from satdifuser.data.check.gallery import sheet
    from satdifuser.data.check.page import Page, html
    from satdifuser.data.check.whole import looks_at, unread
    from satdifuser.engine.files import aside, write_text
    from satdifuser.engine.progress import say

    splits, lost = _those_that_open(settings)
    found: Checked = looks_at(splits, None, settings.samples, settings.workers)
    found.findings = [*lost, *unread(found)]
    folder = Path(settings.output or FOLDER)
    drawn = _gallery(settings, splits, found)
    title = f"Samples of {asked.called(settings)}"
    page = html(Page(title, asked.command, drawn, found, found.findings, everything=False))
    write_text(folder / "samples.html", page)
    path = folder / "samples.png"
    with aside(path, folder / ".samples.png.partial") as partial:
        Image.fromarray(sheet(drawn.groups, found.looks[0].labels)).save(partial, format="png", optimize=True)
    for line in found.lines():
        say(line)
    say(f"wrote {folder}: samples.html, samples.png")
    return 0 if any(not one.alone for look in found.looks for one in look.seen) else 1


def _groups(settings: DataSettings, splits: Mapping[str, LabelledDataset], found: Checked) -> dict[str, list[Card]]:
    """Class -> cards of all splits, or split -> cards where there are no classes."""
    from satdifuser.data.check.gallery import cards, chosen

    groups: dict[str, list[Card]] = {}
    for look in found.looks:
        wanted = chosen(look, settings.shown)
        drawn = cards(splits[look.name], look.name, {n for names in wanted.values() for n in names}, found.sensor)
        for group, names in wanted.items():
            groups.setdefault(group, []).extend(drawn[name] for name in names if name in drawn)
    return groups


def _gallery(settings: DataSettings, splits: Mapping[str, LabelledDataset], found: Checked) -> Gallery:
    """Some samples of each group, and some of those that findings name."""
    from satdifuser.data.check.gallery import cards, gallery

    named: dict[str, Card] = {}
    worst = {name for f in found.findings if f.verdict != "fine" for name in list(f.samples)[:4]}
    for look in found.looks:
        there = {one.name for one in look.seen} & worst
        named |= cards(splits[look.name], look.name, there, found.sensor)
    return gallery(_groups(settings, splits, found), named, found.sensor)
