"""`satdifuser COMMAND --cfg`: the configuration that a command would run with, as YAML that can be read back."""

from __future__ import annotations

from collections.abc import Sequence

from satdifuser.commands.table import Command


def resolved(name: str, command: Command, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> str:
    """Every setting, with all choices made and references looked up; `???` stands for what has to be given.

    Of a grid these are its own settings, with the overrides of every run among `recipe`.
    """
    from omegaconf import OmegaConf

    from satdifuser.config import composed

    passed: list[str] = []
    if command.composes:
        from satdifuser.compare.command import split_overrides
        from satdifuser.compare.overrides import merged
        from satdifuser.config import readable

        begin = ["experiment=demo", "output=demo-output"] if name == "demo" else []
        name, words = "compare", readable("compare", merged(begin, overrides))
        overrides, passed, _ = split_overrides(words, config_dirs)
    elif command.launches:
        overrides = [word for word in overrides if not word.lstrip("+~").startswith("hydra")]
    config = composed(name, overrides, config_dirs)
    if passed:
        OmegaConf.update(config, "recipe", [*config.recipe, *passed])
    text: str = OmegaConf.to_yaml(config)
    return text
