"""Many scenes, or many parts of one: plan, hand out, note, and one manifest of what is done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from satdifuser.engine.files import json_text, read_json, stamp, write_text, writing
from satdifuser.engine.progress import say
from satdifuser.engine.run import RunFolder, dotted
from satdifuser.errors import UserError, one_line
from satdifuser.launching import claimed
from satdifuser.launching import launch as hand_out
from satdifuser.scenes.many.manifest import Row, rows_of, write_manifest
from satdifuser.scenes.many.watch import Scenes
from satdifuser.scenes.many.work import NOTES, Item, items_of
from satdifuser.scenes.many.worker import One, job, work
from satdifuser.scenes.out import SUFFIXES
from satdifuser.settings.trust import trusted

if TYPE_CHECKING:
    from satdifuser.commands.table import Launch
    from satdifuser.scenes.scene import Found
    from satdifuser.settings.scenes import SceneSettings

USUAL = {"predict": ".tif", "embed": ".zarr"}
MOST_JOBS = 64
PASSING = ("scene", "out", "window.batch_size", "threads", "jobs", "parts", "preview", "overwrite", "dry_run")
"""Settings that change no number of an output."""


def carry_out(command: str, settings: SceneSettings, launch: Launch, one: One) -> list[str]:
    """What `predict` and `embed` do: one scene into a file, or many into a folder; gives what is there now."""
    from satdifuser.engine.memory import keep_memory
    from satdifuser.scenes.find import find_scenes
    from satdifuser.scenes.flow import bound_cache

    keep_memory()
    bound_cache()
    suffix = Path(settings.out).suffix.lower()
    if suffix and suffix not in SUFFIXES and not Path(settings.out).is_dir():
        raise UserError(
            f"out={settings.out} is of no kind that is known: give a file of {', '.join(SUFFIXES)}, or a folder"
        )
    found = find_scenes(settings.scene, settings.reading.bands)
    if len(found) > 1 or settings.parts > 1 or suffix not in SUFFIXES:
        return many(command, settings, found, launch, one)
    if launch.overrides:
        say(f"{launch.overrides[0]} is not used: it is one scene in one part (parts=2 and more share it out)")
    done = one(settings, found[0])
    if done.finished and not done.pixels:
        say(f"{', '.join(done.paths)} is there already, made of the same scene in the same way")
    elif done.finished:
        rate = f", {done.computed / done.seconds:.1f} a second" if done.computed else ""
        say(f"wrote {', '.join(done.paths)}: {done.computed} of {done.windows} windows computed{rate}")
    return list(done.paths)


def many(command: str, settings: SceneSettings, found: Sequence[Found], launch: Launch, one: One) -> list[str]:
    """Do what is missing; gives the outputs that are there. What failed is an error at the end, and in the manifest."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "torchrun shares out one scene: for several, or for parts, start the same command several times, or use"
            " hydra/launcher=joblib or slurm"
        )
    out = Path(settings.out)
    single = out.suffix.lower() in SUFFIXES
    if single and len(found) > 1:
        raise UserError(f"out={settings.out} is one file, and there are {len(found)} scenes: give a folder")
    if settings.overwrite and settings.parts > 1:
        raise UserError("overwrite=true with parts: a part could replace what another has written; remove it first")
    suffix = out.suffix if single else f".{settings.format}" if settings.format else USUAL[command]
    folder = out.with_name(out.name + ".jobs") if single else out
    items = items_of(found, settings.parts, out, suffix, folder / NOTES)
    if settings.dry_run:
        return _dry(settings, items, one)
    _begin(command, settings, folder, items)
    about = {"command": command, "settings": settings.plain()}
    stopped: str | None = None
    todo = sum(item.open for item in items)
    each = f" in {settings.parts} parts{' each' * (len(found) > 1)}" * (settings.parts > 1)
    say(f"{len(found)} scene{'s' * (len(found) > 1)}{each}, {todo} to do, in {folder}")
    if todo:
        write_manifest(folder, rows_of(items), about)
        with Scenes(items):
            stopped = _hand_out(command, settings, items, launch, one, folder, suffix)
    rows = rows_of(items)
    paths = write_manifest(folder, rows, about)
    if not single:
        say(f"wrote {paths[0]}: {sum(row.state == 'done' for row in rows)} of {len(rows)} scenes done")
    whole = _whole(rows, items, paths[0], stopped)
    if single and whole:
        say(f"wrote {out}")
        shutil.rmtree(folder, ignore_errors=True)  # there is one output, and it is whole
    return [row.out for row in rows]


def _begin(command: str, settings: SceneSettings, folder: Path, items: Sequence[Item]) -> None:
    """The folder, of this command's settings alone; what failed before is tried again."""
    own = dotted({"command": command, **settings.plain()})
    if own.get("run") is not None:
        own["run's weights"] = stamp(str(RunFolder(own["run"]).best))
    now: dict[str, Any] = json.loads(json_text(own))
    mark = folder / NOTES / "settings.json"
    if mark.is_file() and not settings.overwrite:
        begun = read_json(mark, dict, "remove it, and start again")
        changed = [key for key in {**now, **begun} if key not in PASSING and begun.get(key) != now.get(key)]
        if changed:
            raise UserError(f"{folder} was begun with another {', '.join(changed[:4])}: give the same, or another out=")
    with writing(folder):
        (folder / NOTES).mkdir(parents=True, exist_ok=True)
    write_text(mark, json_text(now) + "\n")
    for item in items:
        state = item.state
        if settings.overwrite or (state is not None and "error" in state):
            item.note.unlink(missing_ok=True)


def _hand_out(
    command: str,
    settings: SceneSettings,
    items: Sequence[Item],
    launch: Launch,
    one: One,
    folder: Path,
    suffix: str,
) -> str | None:
    """Here, or by a launcher's workers; gives the error that the launcher itself ended in."""
    if not launch.overrides:
        work(settings, items, one)
        return None
    jobs = settings.jobs or min(len(items), MOST_JOBS)
    scenes = [[item.found.name, item.found.words] for item in items if item.part == 0]
    plain = {**settings.plain(), "out": str(Path(settings.out).absolute())}
    told: dict[str, Any] = {"command": command, "settings": plain, "scenes": scenes, "suffix": suffix}
    told |= {"notes": str((folder / NOTES).absolute()), "jobs": jobs}
    file = write_text(folder / NOTES / "work.yaml", yaml.safe_dump(json.loads(json_text(told)), sort_keys=False))
    known = ["threads=null", f"trust=[{','.join(trusted())}]"]
    try:
        hand_out([file] * jobs, [*launch.overrides, *known], launch.config_dirs, folder / NOTES, job)
    except UserError:
        raise
    except Exception as error:
        return one_line(error)
    return None


def _dry(settings: SceneSettings, items: Sequence[Item], one: One) -> list[str]:
    """How much is left, and what the first scene takes."""
    left = [item for item in items if item.open or "error" in (item.state or {})]
    names = {item.found.name for item in items}
    undone = {item.found.name for item in left}
    say(f"{len(names)} scene{'s' * (len(names) != 1)}: {len(names - undone)} done, {len(undone)} to do")
    if left:
        one(settings.but(scene=left[0].found.words, out=str(left[0].out), parts=1), left[0].found)
    return []


def _whole(rows: Sequence[Row], items: Sequence[Item], manifest: Path, stopped: str | None) -> bool:
    """Whether all is done; an error unless it is, or others are at what is left."""
    failed = [row for row in rows if row.state == "failed"]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(rows)} scenes failed ({manifest} lists them), the first {failed[0].name}:"
            f" {failed[0].error}"
        )
    left = [item for item in items if item.open]
    if not left:
        return True
    if stopped is None and all(map(_held, left)):
        say(f"other processes are at {len(left)} of {len(items)}: they go on")
        return False
    reason = f"the launcher ended with {stopped}" if stopped else "other processes had them, and were stopped"
    raise UserError(f"{len(left)} of {len(items)} are not done ({reason}): the same command goes on")


def _held(item: Item) -> bool:
    with claimed(item.lock) as mine:
        return not mine or not item.open
