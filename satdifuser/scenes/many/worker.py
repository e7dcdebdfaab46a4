"""A worker: it goes over all scenes, takes what nobody has, and notes what became of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satdifuser.errors import UserError, one_line
from satdifuser.launching import claimed
from satdifuser.scenes.many.work import Item, items_of
from satdifuser.scenes.scene import Found
from satdifuser.settings.trust import trusting
from satdifuser.yaml_file import load_yaml

if TYPE_CHECKING:
    from satdifuser.scenes.done import Done
    from satdifuser.settings.scenes import SceneSettings

ONE = {
    "predict": ("satdifuser.scenes.predict.flow", "predict"),
    "embed": ("satdifuser.scenes.embed.flow", "embed"),
}
One = Callable[..., "Done"]


def job(config: Any) -> None:
    """What Hydra's launchers call: the work that the file `config.job` says."""
    from hydra.core.hydra_config import HydraConfig

    from satdifuser.engine.memory import keep_memory
    from satdifuser.settings.by_command import COMMANDS

    keep_memory()
    number = int(HydraConfig.get().job.num)
    with trusting(config.trust):
        told = load_yaml(Path(config.job))
        settings: Any = COMMANDS[told["command"]](**told["settings"])
        found = [Found(name, words) for name, words in told["scenes"]]
        items = items_of(found, settings.parts, Path(settings.out), told["suffix"], Path(told["notes"]))
        module, name = ONE[told["command"]]
        _choose_device(number)
        work(settings, items, getattr(importlib.import_module(module), name), number, int(told["jobs"]))


def work(settings: SceneSettings, items: Sequence[Item], one: One, number: int = 0, jobs: int = 1) -> int:
    """Do what is open, beginning at this worker's place among `jobs`; gives how much it did.

    Work that somebody else has claimed is left to him; if he is killed, his claim ends, and the last round finds it.
    """
    first, done = number * len(items) // jobs, 0
    ordered = [*items[first:], *items[:first]]
    for _ in range(2):
        for item in ordered:
            if item.open:
                done += _do(settings, item, one)
    return done


def _do(settings: SceneSettings, item: Item, one: One) -> bool:
    with claimed(item.lock) as mine:
        if not mine or not item.open:
            return False
        own = settings.but(scene=item.found.words, out=str(item.out), parts=1)
        try:
            found = one(own, item.found, part=(item.part, item.parts))
        except Exception as error:
            item.tell(error=one_line(error), kind=type(error).__name__, expected=isinstance(error, UserError))
            return True
        item.tell(seconds=round(found.seconds, 3), pixels=found.pixels, windows=found.computed)
        return True


def _choose_device(number: int) -> None:
    import torch

    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(number % torch.cuda.device_count())
