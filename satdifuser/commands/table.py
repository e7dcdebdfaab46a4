"""The commands: which module does each, what it is told, and examples that work as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
    launches: bool = False  # it may hand jobs to Hydra's launchers: `run(settings, launch)` is told which
    positional: tuple[str, ...] = ()  # settings that may be given by their place, without a name
    verbs: tuple[str, ...] = ()  # one of which comes first; `run(verb, settings, overrides)` gives the exit code


def named(positional: Sequence[str], words: Sequence[str]) -> list[str]:
    """The words with the names of those settings that were given by their place.

    >>> named(("map", "reference"), ["map.tif", "ground.gpkg", "level=0.9"])
    ['map=map.tif', 'reference=ground.gpkg', 'level=0.9']
    """
    names, found = iter(positional), []
    for word in words:
        name = None if "=" in word or word.startswith("-") else next(names, None)
        found.append(word if name is None else f"{name}={word}")
    return found


@dataclass(frozen=True)
class Launch:
    """Which of Hydra's launchers does a command's jobs, and the user's own folders of groups."""

    overrides: Sequence[str] = ()
    config_dirs: Sequence[str] = ()


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
        typed=True,
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
    "predict": Command(
        "satdifuser.commands.predict",
        "a run's head over whole scenes: georeferenced maps, in windows that are blended",
        (
            "satdifuser predict run=runs/moe scene=S2.tif out=map.tif",
            "satdifuser predict run=runs/moe scene=S2A_MSIL2A_20260603.SAFE out=map.tif output=probabilities",
            "satdifuser predict run=runs/moe scene='tiles/*.tif' out=maps/ hydra/launcher=joblib",
            "satdifuser predict run=runs/moe scene=S2.tif out=map.tif dry_run=true",
        ),
        launches=True,
    ),
    "embed": Command(
        "satdifuser.commands.embed",
        "features of whole scenes: a georeferenced raster of vectors, or a table of tiles",
        (
            "satdifuser embed scene=S2.tif out=embeddings.zarr",
            "satdifuser embed scene=S2.tif out=embeddings.tif encoder=small_vit select.depths=[-1] dtype=int8",
            "satdifuser embed scene=S2.tif out=tiles.parquet run=runs/finetuned",
        ),
        launches=True,
    ),
    "evaluate-map": Command(
        "satdifuser.commands.evaluate_map",
        "accuracy and areas of a map, from points or polygons whose class is known, with intervals",
        (
            "satdifuser evaluate-map map=map.tif reference=points.gpkg",
            "satdifuser evaluate-map map.tif reference.gpkg column=class output=accuracy",
        ),
        positional=("map", "reference"),
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
            "satdifuser store prune features.zarr small.zarr timesteps=21 taps=up_blocks.1.resnets.1",
        ),
        configured=False,
        words=True,
    ),
    "completion": Command(
        "satdifuser.commands.completion",
        "what makes a press of TAB complete commands, groups, choices and settings: for bash, zsh and fish",
        (
            "satdifuser completion bash > ~/.local/share/bash-completion/completions/satdifuser",
            "satdifuser completion zsh > ~/.zfunc/_satdifuser",
            "satdifuser completion fish > ~/.config/fish/completions/satdifuser.fish",
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
