"""`satdifuser COMMAND [overrides]`: parse, compose the configuration, run, and end errors in one line."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from satdifuser.errors import UserError, expected, nearest, one_line


@dataclass(frozen=True)
class Command:
    """A command: its module (with `run(settings)`), what it does, and examples that work as they stand."""

    module: str
    summary: str
    examples: tuple[str, ...]
    configured: bool = True
    composes: bool = False  # it composes its configurations itself, from the overrides and the --config-dir folders
    words: bool = False  # it takes words of its own, and its `run` gives the exit code
    typed: bool = False  # `run(settings, command)` is given the line that a user has typed, for its page
    verbs: tuple[str, ...] = ()  # one of which comes first; `run(verb, settings, overrides)` gives the exit code


COMMANDS = {
    "demo": Command(
        "satdifuser.compare.demo",
        "the whole story on the built-in scenes: extract, train the three heads, adapt a ViT, compare, report",
        ("satdifuser demo", "satdifuser demo output=/tmp/demo seed=1"),
        composes=True,
    ),
    "extract": Command(
        "satdifuser.commands.extract",
        "features of a data set to a store on disk",
        (
            "satdifuser extract store.path=features.zarr",
            "satdifuser extract store.path=tiny.zarr data.splits.train.length=64 encoder.timesteps=[21,161]",
            "satdifuser extract encoder=diffusionsat encoder.backbone.weights=FOLDER encoder.mode=inversion",
        ),
    ),
    "train": Command(
        "satdifuser.commands.train",
        "a fusion head and decoder on stored or live features, an adapted ViT, or an encoder from scratch",
        (
            "satdifuser train fusion=moe task=segmentation features=features.zarr run=runs/moe",
            "satdifuser train encoder=unet fusion=mean task=classification run=runs/unet",
            "satdifuser train encoder=small_vit adapter=deflect run=runs/deflect",
            "torchrun --nproc_per_node 2 -m satdifuser train features=features.zarr run=runs/two",
        ),
    ),
    "eval": Command(
        "satdifuser.commands.eval",
        "score a run's best checkpoint on a split",
        ("satdifuser eval run=runs/moe", "satdifuser eval run=runs/moe split=val"),
    ),
    "compare": Command(
        "satdifuser.compare.command",
        "a grid of models, tasks, label budgets and seeds: what is missing of it, and one report",
        (
            "satdifuser compare experiment=demo output=comparison",
            "satdifuser compare fusion=gw,lw,moe task=segmentation,classification budget=10,100 seed=0,1 trainer=quick",
            "satdifuser compare experiment=demo dry_run=true",
            "satdifuser compare experiment=demo hydra/launcher=joblib hydra.launcher.n_jobs=4",
        ),
        composes=True,
    ),
    "probe": Command(
        "satdifuser.commands.probe",
        "how much of a task is readable at each place of a network: probes of every tap and timestep",
        (
            "satdifuser probe output=probes/small",
            "satdifuser probe features=features.zarr task=segmentation probe.pixels=100000",
            "satdifuser probe encoder=small_vit encoder.class_token=true probe.views=[mean,class] budgets=[10,100]",
        ),
        typed=True,
    ),
    "cka": Command(
        "satdifuser.commands.cka",
        "how alike the places of two networks are: before and after training, of two runs, stores or encoders",
        (
            "satdifuser cka first=runs/latest",
            "satdifuser cka first=runs/latest cka.modules=all cka.samples=512",
            "satdifuser cka first=[encoder=small] second=[encoder=small_vit]",
            "satdifuser cka first=features.zarr second=[encoder=small_vit,encoder.modules=all]",
        ),
        typed=True,
    ),
    "pretrain": Command(
        "satdifuser.commands.pretrain",
        "a small diffusion model on unlabelled images, in pixels or in the latents of a VAE",
        (
            "satdifuser pretrain run=runs/pretrain",
            "satdifuser pretrain data=image_folder data.root=EuroSAT_RGB data@mix=synthetic",
            "satdifuser pretrain data=image_folder data.root=IMAGES vae.weights=small",
            "satdifuser pretrain run=runs/pretrain resume=true",
        ),
    ),
    "taps": Command(
        "satdifuser.commands.taps",
        "every place where a diffusion backbone's features can be read (no weights needed)",
        ("satdifuser taps encoder=diffusionsat", "satdifuser taps encoder=small all=true"),
    ),
    "data": Command(
        "satdifuser.commands.data",
        "what a reader sees: check it for the field's silent bugs, statistics of its bands, pictures of its samples",
        (
            "satdifuser data check data=image_folder data.root=EuroSAT_MS data.sensor=SENTINEL2_B8A_LAST",
            "satdifuser data check encoder=small output=checked",
            "satdifuser data stats format=csv",
            "satdifuser data show output=pictures",
        ),
        verbs=("check", "stats", "show"),
    ),
    "store": Command(
        "satdifuser.commands.store",
        "look after feature stores: info, verify, merge, prune",
        (
            "satdifuser store info features.zarr",
            "satdifuser store verify features.zarr",
            "satdifuser store merge both.zarr one.zarr two.zarr",
            "satdifuser store prune features.zarr small.zarr timesteps=21 taps=up_blocks.1.attentions.1",
        ),
        configured=False,
        words=True,
    ),
    "doctor": Command(
        "satdifuser.commands.doctor",
        "what is installed, which attention is used and why, which weights are found, what would fail",
        ("satdifuser doctor",),
        configured=False,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The console command; gives the exit code (0 done, 1 failed, 2 bad usage, 130 interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        print("satdifuser: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        hint = "" if expected(error) else " (unexpected; add --debug for the traceback)"
        print(f"satdifuser: {one_line(error)}{hint}", file=sys.stderr)
        return 1 if hint else 2


def _dispatch(words: list[str]) -> int:
    if words and words[0] == "--version":
        from satdifuser import __version__

        print(f"satdifuser {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}: there is {', '.join(COMMANDS)}{nearest(name, COMMANDS)}")
    command = COMMANDS[name]
    asked = "-h" in rest or "--help" in rest
    if command.words and not asked:
        code: int = importlib.import_module(command.module).run(rest)
        return code
    verb = ""
    if command.verbs:
        first = next((word for word in rest if not word.startswith("-")), "")
        if first in command.verbs:
            verb = first
            rest.remove(first)
        elif not asked:
            raise UserError(
                f"satdifuser {name} is followed by {', '.join(command.verbs)}, as satdifuser {name} {command.verbs[0]}"
                f"{nearest(first, command.verbs)}"
            )
    given = _options(name, [word for word in rest if word not in ("-h", "--help")])
    if asked:
        print(_help(name, command, given))
        return 0
    if not command.configured and given.overrides:
        raise UserError(f"satdifuser {name} takes no overrides, but got {given.overrides[0]!r}")
    run = importlib.import_module(command.module).run
    if not command.configured:
        return int(run())
    from satdifuser.config import compose
    from satdifuser.report.repeat import command_line

    typed = command_line(f"{name} {verb}".strip(), given.overrides, given.config_dirs, given.trust)
    with given.trusted():
        if command.verbs:
            return int(run(verb, compose(name, given.overrides, given.config_dirs), given.overrides, typed))
        if command.composes:
            run(given.overrides, given.config_dirs, given.trust)
        elif command.typed:
            run(compose(name, given.overrides, given.config_dirs), typed)
        else:
            run(compose(name, given.overrides, given.config_dirs))
    return 0


@dataclass
class Given:
    """What stands behind a command: its overrides, the user's own folders of groups, the packages that he trusts."""

    overrides: list[str] = field(default_factory=list)
    config_dirs: list[str] = field(default_factory=list)
    trust: list[str] = field(default_factory=list)

    def trusted(self) -> contextlib.AbstractContextManager[None]:
        """Meanwhile classes of these packages may be named, and of those that the user's own groups and words name."""
        from satdifuser.config import trusted_by
        from satdifuser.settings.trust import check_trusted, trusting

        return trusting({*map(check_trusted, self.trust), *trusted_by(self.config_dirs, self.overrides)})


def _options(name: str, words: list[str]) -> Given:
    """Split `--config-dir DIR` and `--trust PACKAGE` from the overrides; any other option is an error."""
    given, rest = Given(), iter(words)
    options = {"--config-dir": (given.config_dirs, "a folder"), "--trust": (given.trust, "the name of a package")}
    for word in rest:
        option, _, value = word.partition("=")
        if option in options:
            found, what = options[option]
            value = value or next(rest, "")
            if not value:
                raise UserError(f"{option} needs {what}")
            found.append(value)
        elif word.startswith("-"):
            raise UserError(
                f"satdifuser {name} has no option {word!r}: it has --help, {', '.join(options)} and --debug"
            )
        else:
            given.overrides.append(word)
    return given


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "satdifuser: features of generative geospatial diffusion models, compared fairly with discriminative ones",
        "",
        "usage: satdifuser COMMAND [name=value ...] [--config-dir DIR] [--trust PACKAGE] [--debug]",
        "",
        *(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()),
        "",
        "satdifuser COMMAND --help shows the command's groups and examples",
    ]
    return "\n".join(lines)


def _help(name: str, command: Command, given: Given) -> str:
    """What a command does; with choices of groups behind it, what every setting can then be."""
    chosen = given.overrides
    if chosen and command.configured and not command.composes:
        from satdifuser.help import lines as described

        with given.trusted():
            return "\n".join([f"satdifuser {name} {' '.join(chosen)}", *described(name, chosen, given.config_dirs)])
    lines = [f"satdifuser {name}: {command.summary}", "", "examples:", *(f"  {line}" for line in command.examples)]
    if command.configured:
        from satdifuser.config import config_root, groups

        file = f"{name}.yaml" if name != "demo" else "experiment/demo.yaml"
        top = (config_root() / file).read_text().rstrip()
        used = {group: names for group, names in groups().items() if f"- {group}:" in top}
        lines += ["", "groups (choose with group=name):"] if used else []
        lines += [f"  {group:<9} {', '.join(names)}" for group, names in used.items()]
        lines += ["", f"settings (configs/{file}):", *(f"  {line}" for line in top.splitlines())]
        if not command.composes and used:
            group = "fusion=moe" if "fusion" in used else next(f"{g}={n[0]}" for g, n in used.items())
            lines += ["", f"satdifuser {name} --help {group} shows what every setting can be"]
        if command.composes:
            lines += ["", "every other override goes to each satdifuser train; a,b makes one run with each"]
    lines += ["", "--config-dir DIR adds your own groups, --trust PACKAGE your own classes; --debug shows tracebacks"]
    return "\n".join(lines)
