"""satdifuser pretrain and train killed at any moment: the model and the log are those of a run that was not."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from satdifuser.engine.run import RunFolder

pytestmark = pytest.mark.xdist_group("killed")  # whose driver and unbroken runs are made once

# Imports everything once. Each line of its input is a command by forked processes; the first of them to end badly ends
# the others, as torchrun does. A process dies at the n-th thing that it does to a file of the run or before a step.
DRIVER = """
import gc, json, os, re, signal, sys, threading, time
import zarr, accelerate, diffusers.models, diffusers.training_utils, safetensors.torch, torch, torch.distributed
import satdifuser.commands.pretrain, satdifuser.commands.train, satdifuser.data.synthetic, satdifuser.pretrain.stages
import hydra.utils, PIL.PngImagePlugin, rich.progress, satdifuser.pretrain.card, satdifuser.report.figures
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DModel
from satdifuser.cli import main
from satdifuser.engine.trainer import Trainer
from satdifuser.pretrain.trainer import Pretrainer

torch.set_num_threads(1)
satdifuser.pretrain.card.draw_losses = lambda rows, path: path.touch()  # half a tiny run's time
satdifuser.report.figures.draw_weights = lambda spec, weights, path: path.touch()
gc.freeze()
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


def command(job, rank):
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(job["environments"][rank])
    count, at, busy = 0, job["at"] if rank == job["victim"] else 0, threading.RLock()

    def moment(where):
        nonlocal count
        if re.search(job["match"], where):
            with busy:
                count += 1
                if count == at:
                    os.write(log, f"dies at {where}\\n".encode())
                    os.kill(os.getpid(), signal.SIGKILL)

    def watch(event, args):
        if event in EVENTS and (job["root"] in str(args[0]) or event in ("os.remove", "os.rmdir")):
            if "tensorboard" not in str(args[0]):
                moment(f"{event} {args[0]} {args[1] if event in ('os.rename', 'open') else ''}")

    def between(owner, name):
        whole = getattr(owner, name)

        def watched(*args, **kwargs):
            moment(f"before {name}")
            found = whole(*args, **kwargs)
            moment(f"after {name}")
            return found

        setattr(owner, name, watched)

    between(os, "fsync")
    between(safetensors.torch, "save_file")
    for name in ("_step", "_save", "_evaluate"):
        between(Pretrainer, name)
        between(Trainer, name)
    sys.addaudithook(watch)
    code = main(job["words"])
    if at == 0 and rank == job["victim"]:
        at = -1
        os.write(log, f"moments {count}\\n".encode())
    return code


for line in sys.stdin:
    job, living, codes = json.loads(line), {}, []
    for rank in range(len(job["environments"])):
        child = os.fork()
        if child == 0:
            code = 99
            try:
                code = command(job, rank)
            finally:
                os._exit(code)
        living[child] = rank
    ending = None
    while living:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child in living:
            del living[child]
            codes.append(os.waitstatus_to_exitcode(status))
            if codes[-1] and ending is None:
                ending = time.monotonic()
                for other in living:
                    os.kill(other, signal.SIGTERM)
            continue
        if ending is not None and time.monotonic() - ending > 3:
            for other in living:
                os.kill(other, signal.SIGKILL)
        time.sleep(0.005)
    print(json.dumps(codes), flush=True)
os._exit(0)  # what is frozen would be told as leaks
"""
UNET = [
    "unet.block_out_channels=[8,8]",
    "unet.down_block_types=[DownBlock2D,AttnDownBlock2D]",
    "unet.up_block_types=[AttnUpBlock2D,UpBlock2D]",
    "unet.norm_num_groups=4",
    "unet.attention_head_dim=8",
]
RECIPE = [
    "recipe.steps=6",
    "recipe.batch_size=2",
    "recipe.eval_every=2",
    "recipe.eval_images=2",
    "recipe.levels=[2]",
    "schedule.num_train_timesteps=5",
    "recipe.samples=1",
    "recipe.warmup=1",
    "recipe.tensorboard=false",
]
DATA = ["data.size=16", "data.splits.train.length=5", "data.splits.val.length=3"]
PIXELS = ["pretrain", *UNET, *RECIPE, *DATA]
LATENTS = [*PIXELS, "vae.weights=small", "vae.block_out_channels=[16,16]", "vae.latent_channels=2", "vae.steps=3"]
TRAIN = [
    "train",
    *DATA,
    "data.splits.test.length=2",
    *("encoder=unet", "fusion=mean", "task=classification", "fusion.projection_dim=16", "trainer=quick"),
    *("trainer.max_steps=5", "trainer.batch_size=4", "trainer.eval_every=2", "trainer.tensorboard=false"),
]


COMMANDS = {"pixels": PIXELS, "latents": LATENTS, "train": TRAIN}


class Driver:
    """Runs commands in forked processes."""

    def __init__(self, folder: Path) -> None:
        (folder / "driver.py").write_text(DRIVER)
        self.folder, self.log = folder, folder / "log"
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )

    def run(
        self, words: list[str], path: Path, *more: str, at: int = 0, match: str = "", world: int = 1, victim: int = 0
    ) -> bool:
        """Run a command, perhaps killed at the moment `at`; whether it ended by itself."""
        self.log.unlink(missing_ok=True)
        job = {
            "words": [*words, f"run={path}", *more],
            "root": str(path),
            "log": str(self.log),
            "environments": environments(world),
            **{"at": at, "match": match, "victim": victim},
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        codes = json.loads(self.process.stdout.readline())
        if not any(codes):
            return True
        assert at, f"{codes}: {self.said()}"
        assert -signal.SIGKILL in codes, f"{codes}: {self.said()}"
        return False

    def moments(self) -> int:
        """How many there were in the last run, which nothing killed."""
        return int(self.said().rpartition("moments ")[2])

    def said(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        self.process.communicate()


def environments(world: int) -> list[dict[str, str]]:
    """What torchrun tells each process."""
    if world == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    made = Driver(tmp_path_factory.mktemp("driver"))
    yield made
    made.close()


def outcome(run: Path) -> dict[str, Any]:
    """What a run leaves, without its times: its weights as bytes, the rows of its log, what it painted."""
    found: dict[str, Any] = {"rows": RunFolder(run).rows()}
    if (run / "vae").is_dir():
        found["vae rows"] = RunFolder(run / "vae").rows()
    for file in run.rglob("*"):
        name = str(file.relative_to(run))
        if file.name == "result.json":
            found[name] = {key: v for key, v in json.loads(file.read_text()).items() if key not in ("run", "cost")}
        elif file.name == "provenance.json":
            found[name] = {key: v for key, v in json.loads(file.read_text()).items() if key != "minutes"}
        elif file.suffix == ".safetensors" and "checkpoints" in name:
            found[name] = {key: value.tolist() for key, value in load_file(file).items()}
        elif file.suffix in (".safetensors", ".png") or ".old" in name:
            found[name] = file.read_bytes()
    return found


def differences(run: Path, whole: Path) -> list[str]:
    found, expected = outcome(run), outcome(whole)
    return [key for key in sorted(found.keys() | expected.keys()) if found.get(key) != expected.get(key)]


@pytest.fixture(scope="module")
def unbroken(driver: Driver) -> Callable[..., Path]:
    """The run of a command that nothing killed, with so many processes."""

    @functools.cache
    def make(command: str, world: int = 1) -> Path:
        path = driver.folder / f"{command}-{world}"
        assert driver.run(COMMANDS[command], path, world=world)
        assert differences(path, path) == []
        return path

    return make


# Of the last step, and of the end of the VAE's training: which moment, and how often it was there before.
ENDS = {
    "pixels": [
        ("before _save", 3),
        (r"^os\.rename .*last\.safetensors", 3),
        (r"^os\.rename .*last\.json", 3),
        ("before _evaluate", 3),
        (r"^os\.rename .*step-000006\.png", 1),
        (r"^os\.mkdir .*model\.partial ", 3),
        (r"^os\.rename .*/model\.partial ", 3),
        ("after _evaluate", 3),
        (r"^open .*metrics\.jsonl a", 6),
    ],
    "latents": [("after _save", 2), ("after _evaluate", 2), (r"^os\.rename .*/vae/model\.partial ", 1)],
    "train": [
        ("before _save", 3),
        (r"^os\.rename .*best\.safetensors", 1),
        (r"^os\.rename .*last\.safetensors", 3),
        (r"^open .*metrics\.jsonl a", 4),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(("command", "match", "at"), [(name, *end) for name, ends in ENDS.items() for end in ends])
def test_a_kill_at_a_step_of_the_end_changes_neither_model_nor_log(
    tmp_path: Path, driver: Driver, unbroken: Callable[..., Path], command: str, match: str, at: int
) -> None:
    assert not driver.run(COMMANDS[command], tmp_path / "run", match=match, at=at)
    assert driver.run(COMMANDS[command], tmp_path / "run", "resume=true")
    assert differences(tmp_path / "run", unbroken(command)) == []


def killed_often(
    driver: Driver, command: str, path: Path, chance: random.Random, kills: int, most: int, worlds: Sequence[int] = (1,)
) -> int:
    """Kill a run so often at random moments and leave halves of rows, then let it end; how many kills it felt."""
    felt = 0
    for _ in range(kills):
        world = chance.choice(worlds)
        moment = {"at": chance.randrange(1, most), "world": world, "victim": chance.randrange(world)}
        felt += not driver.run(COMMANDS[command], path, "resume=true", **moment)
        if path.is_dir():
            with RunFolder(path).metrics.open("ab") as log:
                log.write(chance.choice([b"", b'{"step": 4, "lo', b"\0" * 64]))
    assert driver.run(COMMANDS[command], path, "resume=true")
    return felt


@pytest.mark.slow
@pytest.mark.parametrize(("command", "most"), [("pixels", 60), ("latents", 60), ("train", 50)])
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(
    tmp_path: Path, driver: Driver, unbroken: Callable[..., Path], command: str, most: int
) -> None:
    assert killed_often(driver, command, tmp_path / "run", random.Random(3), 5, most) > 1
    assert differences(tmp_path / "run", unbroken(command)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("match", "victim"),
    [("after _save", 0), ("before _evaluate", 0), ("after _evaluate", 1), (r"^os\.rename .*/model\.partial ", 0)],
)
def test_two_processes_of_which_one_is_killed_go_on_to_what_they_would_have_made(
    tmp_path: Path, driver: Driver, unbroken: Callable[..., Path], match: str, victim: int
) -> None:
    """Up to rounding, which is promised of one process alone; the losses tell a step's model from another's."""
    run, whole = tmp_path / "run", unbroken("pixels", 2)
    assert not driver.run(COMMANDS["pixels"], run, match=match, at=3, world=2, victim=victim)
    assert driver.run(COMMANDS["pixels"], run, "resume=true", world=2)
    found, expected = outcome(run), outcome(whole)
    assert found.keys() == expected.keys()
    assert len(found["rows"]) == 6
    for row, other in zip(found["rows"], expected["rows"], strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    ours, theirs = (made["model/provenance.json"] for made in (found, expected))
    assert ours["steps"] == theirs["steps"] == 6
    assert ours["loss_on_held_out_images"] == pytest.approx(theirs["loss_on_held_out_images"], abs=2e-5)
    assert found["rows"][-1]["val/2"] != pytest.approx(found["rows"][3]["val/2"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 3, 9, 20, 40])
def test_a_kill_while_an_old_run_is_replaced_leaves_nothing_of_it_in_the_new_one(
    tmp_path: Path, driver: Driver, unbroken: Callable[..., Path], at: int
) -> None:
    path = tmp_path / "run"
    shutil.copytree(unbroken("latents"), path)
    assert not driver.run(COMMANDS["pixels"], path, "overwrite=true", match=r"^os\.|^open .* w", at=at)
    assert driver.run(COMMANDS["pixels"], path, "overwrite=true")
    assert differences(path, unbroken("pixels")) == []
