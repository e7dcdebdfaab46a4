"""What is worth a GPU's time, in the order of its value: each part with its time limit, its needs and its command.

`{python}`, `{tools}`, `{tests}`, `{work}` and `{json}` in a command are filled in by `gpu_suite.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

MINUTES = 12.0  # what the time limits are for; more --minutes stretch them


@dataclass(frozen=True)
class Part:
    """`kind` says what it leaves: `tables` a benchmark's JSON, `tests` a JUnit file, `pretraining` a run's folder.

    `seconds` is its limit; the pretraining has none and takes what is left, also of the others' time.
    """

    name: str
    what: str
    needs: str
    command: tuple[str, ...]
    seconds: float | None = None
    kind: str = "tables"


def _bench(script: str, *words: str) -> tuple[str, ...]:
    return ("{python}", "{tools}/" + script, *words, "--json", "{json}")


def _pytest(*words: str) -> tuple[str, ...]:
    options = ("-q", "--color=no", "-p", "no:cacheprovider", "--junitxml", "{work}/tests.xml")
    return ("{python}", "-m", "pytest", "{tests}/gpu", *words, *options)


PRETRAINING = (  # what docs/pretraining.md says of the shipped encoder, at a GPU's size
    *("prepare.mean=0.34", "prepare.std=0.15", "recipe.steps=20000", "recipe.batch_size=128"),
    *("recipe.mixed_precision=bf16", "recipe.eval_every=1000", "recipe.eval_images=256"),
    "recipe.tensorboard=false",
)
IMAGES = (  # with --data: a folder of images, an eighth of each batch built-in scenes
    *("data=image_folder", "data.root=images", "data@mix=synthetic", "mix.splits.train.split=pretrain"),
    *("mix.splits.train.length=4000", "mix.splits.val.length=128"),
)
SCENES = ("data.splits.train.length=4000", "data.splits.train.split=pretrain", "data.splits.val.length=128")
HALVES = ("--precisions", "float16", "bfloat16")


def _pretrain(*words: str) -> tuple[str, ...]:
    return ("{python}", "-m", "satdifuser", "pretrain", "run=pretrain", "resume=true", *words)


PARTS = (
    Part(
        "tests",
        "the tests marked gpu: every encoder, head, adapter and store form against the CPU",
        "4 GiB of the card",
        _pytest("-n", "4"),
        140,
        "tests",
    ),
    Part(
        "extract-256",
        "extraction at SD-2.1 size, 256 px: the published protocol as released against ours, in 16 bits",
        "7 GiB of the card, and what larger batches take until it is full",
        _bench(
            "bench_extract.py", "--batch", "16", "64", "128", "--rounds", "2", "--modes", "noise", "inversion", *HALVES
        ),
        80,
    ),
    Part(
        "extract-512",
        "the same at 512 px",
        "7 GiB of the card, and what larger batches take until it is full",
        _bench("bench_extract.py", "--size", "512", "--batch", "8", "32", "--rounds", "2", "--modes", "noise", *HALVES),
        80,
    ),
    Part(
        "extract-float32",
        "the same in float32, without TF32",
        "10 GiB of the card",
        _bench("bench_extract.py", "--batch", "32", "--modes", "noise", "--precisions", "float32", "--rounds", "2"),
        40,
    ),
    Part(
        "deflect",
        "a training step of each adapter at ViT-B and ViT-L, 13 bands: time and peak memory",
        "25 GiB of the card (eight processes at once)",
        _bench("bench_deflect.py", "--batch", "32", "16", "--steps", "3", "--rounds", "5", "--autocast"),
        80,
    ),
    Part(
        "training",
        "forty epochs of the published head from a store against the live encoder",
        "10 GiB of the card, 6 GB of disk",
        _bench(
            *("bench_training.py", "--images", "256", "--live", "64", "--batch", "32", "--epochs", "2"),
            *("--precision", "float16", "--autocast", "--folder", "{work}"),
        ),
        60,
    ),
    Part(
        "store",
        "writing and reading a feature store, onto the card too",
        "3 GB of disk",
        _bench(
            *("bench_store.py", "--samples", "64", "--batch", "32", "--rounds", "2", "--threads", "8"),
            *("--folder", "{work}"),
        ),
        40,
    ),
    Part(
        "extract-compiled",
        "extraction compiled (the compiler takes a minute or more)",
        "10 GiB of the card, a C++ compiler",
        _bench("bench_extract.py", "--batch", "64", "--modes", "noise", "--precisions", "bfloat16", "--compile"),
        110,
    ),
    Part(
        "pretraining",
        "the shipped encoder's pretraining, for the minutes that are left",
        "8 GiB of the card; --data for real images",
        _pretrain(*PRETRAINING),
        None,
        "pretraining",
    ),
)

_SMALL = ("--architecture", "tiny", "--size", "32")
_FEW = ("--batch", "2", "--rounds", "1", "--modes", "noise")
_STEPS = ("recipe.steps=4", "recipe.batch_size=8", "recipe.eval_every=2", "recipe.eval_images=8", "recipe.samples=4")
TINY = {
    "tests": _pytest("-n", "2", "-m", "gpu and not slow"),
    "extract-256": _bench("bench_extract.py", *_SMALL, "--batch", "2", "4", *_FEW[2:], "inversion", *HALVES),
    "extract-512": _bench("bench_extract.py", *_SMALL, "64", *_FEW, "--precisions", "bfloat16"),
    "extract-float32": _bench("bench_extract.py", *_SMALL, *_FEW, "--precisions", "float32"),
    "deflect": _bench(
        *("bench_deflect.py", "--models", "vit_tiny_patch16_224", "--size", "32", "--batch", "2", "--rounds", "1"),
        *("--methods", "frozen", "lora", "deflect", "--threads", "1"),
    ),
    "training": _bench(
        *("bench_training.py", *_SMALL, "--images", "4", "--live", "2", "--batch", "2", "--projection", "32"),
        *("--epochs", "1", "--folder", "{work}"),
    ),
    "store": _bench(
        *("bench_store.py", "--size", "64", "--samples", "8", "--batch", "4", "--rounds", "1", "--threads", "2"),
        *("--folder", "{work}"),
    ),
    "extract-compiled": _bench("bench_extract.py", *_SMALL, *_FEW, "--precisions", "float32", "--compile"),
    "pretraining": _pretrain("data.size=16", "prepare.mean=0.34", "prepare.std=0.15", *_STEPS),
}
TINY_SCENES = ("data.splits.train.length=16", "data.splits.val.length=8")
