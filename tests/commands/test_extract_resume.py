"""satdifuser extract killed at any moment, by any signal, one process or two: the store is always the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from satdifuser.store import FeatureStore

pytestmark = pytest.mark.xdist_group("extract_resume")  # whose driver and unbroken store are made once

# Imports everything once. Each line of its input is an extraction by forked processes; the first of them to end badly
# ends the others, as torchrun does. A process dies at the n-th thing that it does to a file of the store.
DRIVER = """
import json, os, re, signal, sys, threading, time
import accelerate, safetensors.numpy, torch, torch.distributed, zarr
import satdifuser.commands.extract, satdifuser.data.synthetic, satdifuser.diffusion.encoder, satdifuser.engine.progress
from satdifuser.cli import main
from satdifuser.store import unit

torch.set_num_threads(1)
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link"}


def extraction(job, rank):
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(job["environments"][rank])
    unit.SAVE_SECONDS = job["save_seconds"]
    count, at, busy = 0, job["at"] if rank == job["victim"] else 0, threading.Lock()

    def moment(where):
        nonlocal count
        if re.search(job["match"], where):
            with busy:
                count += 1
                if count == at:
                    os.kill(os.getpid(), job["signal"])

    def watch(event, args):
        if event in EVENTS and (job["root"] in str(args[0]) or event in ("os.remove", "os.rmdir")):
            moment(f"{event} {args[0]} {args[1] if event == 'os.rename' else ''}")

    sync = os.fsync
    os.fsync = lambda file: (moment("fsync"), sync(file))[1]
    sys.addaudithook(watch)
    code = main(["extract", *job["words"]])
    if at == 0:
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
                code = extraction(job, rank)
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
"""
DATA = ["data.size=16", "data.splits.train.length=11", "data.splits.val.length=5", "data.splits.test.length=7"]
SMALL = ["encoder.taps=[mid_block,up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21]"]
WORDS = [*DATA, *SMALL, "store.shard_mb=0.008", "store.batch_size=3"]  # four samples a file


class Driver:
    """Runs extractions in forked processes."""

    def __init__(self, folder: Path) -> None:
        (folder / "driver.py").write_text(DRIVER)
        self.folder, self.log = folder, folder / "log"
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def run(
        self,
        path: Path,
        *words: str,
        at: int = 0,
        by: signal.Signals = signal.SIGKILL,
        match: str = "",
        world: int = 1,
        victim: int = 0,
        save_seconds: float = 20.0,
    ) -> bool:
        """Extract to `path`, perhaps stopped at the moment `at`; whether it ended by itself."""
        self.log.unlink(missing_ok=True)
        job = {
            "words": [*WORDS, f"store.path={path}", *words],
            "root": str(path),
            "log": str(self.log),
            "environments": environments(world),
            **{"at": at, "signal": int(by), "match": match, "victim": victim, "save_seconds": save_seconds},
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        codes = json.loads(self.process.stdout.readline())
        if not any(codes):
            return True
        stopped = {-by, 130}
        assert at, f"{codes}: {self.said()}"
        assert stopped & set(codes), f"{codes}: {self.said()}"
        return False

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
    # (`accelerate launch --cpu --num_processes 2` starts one process)
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    made = Driver(tmp_path_factory.mktemp("driver"))
    yield made
    made.close()


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def unbroken(driver: Driver) -> dict[str, bytes]:
    """The files of a store that was made at once."""
    path = driver.folder / "unbroken.zarr"
    assert driver.run(path)
    return content(path)


def equal(path: Path, unbroken: dict[str, bytes]) -> None:
    """Every file the same, and none more."""
    found = content(path)
    assert found.keys() == unbroken.keys()
    assert [name for name in found if found[name] != unbroken[name]] == []
    FeatureStore(path)


def torn(path: Path, chance: random.Random) -> None:
    """What a kill in the middle of a write leaves: files with more than is known to be good."""
    for file in path.with_name(path.name + ".partial").rglob("*.part"):
        with file.open("ab") as end:
            end.write(chance.randbytes(chance.randrange(5000)))


def until_done(driver: Driver, path: Path, chance: random.Random, worlds: Sequence[int] = (1,)) -> int:
    """Stop extractions at random moments until one ends by itself or has made the store; how many were stopped."""
    stopped = 0
    while not path.exists() and stopped < 60:
        by = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        world, most = chance.choice(worlds), chance.choice([40, 150, 400])  # an unbroken run has about 260 moments
        moment: dict[str, Any] = {"at": chance.randrange(1, most), "by": by, "victim": chance.randrange(world)}
        if driver.run(path, **moment, world=world, save_seconds=chance.choice([0.0, 20.0])):
            break
        stopped += 1
        torn(path, chance)
    return stopped


@pytest.mark.slow
def test_a_run_that_is_stopped_again_and_again_makes_the_store_of_an_unbroken_one(
    tmp_path: Path, driver: Driver, unbroken: dict[str, bytes]
) -> None:
    assert until_done(driver, tmp_path / "f.zarr", random.Random(5)) > 1
    equal(tmp_path / "f.zarr", unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_is_one_that_loses_nothing_and_says_how_to_go_on(
    tmp_path: Path, driver: Driver, unbroken: dict[str, bytes], by: signal.Signals
) -> None:
    path = tmp_path / "f.zarr"
    assert not driver.run(path, at=9, by=by)
    assert "the same command goes on from there" in driver.said()
    assert "Traceback" not in driver.said()
    assert not path.exists()
    assert driver.run(path)
    assert "going on with" in driver.said()
    assert [file.name for file in tmp_path.iterdir()] == ["f.zarr"]
    equal(path, unbroken)


# Where a kill leaves a file half written or a step half done: each is a moment of its own.
LAST = [
    r"^os\.rename \S+\.part ",
    r"^os\.rename .*manifest\.json",
    r"^os\.rename .*/zarr\.json",
    r"^os\.rename \S+/store ",
    r"^open .*/mask/c",
]


@pytest.mark.slow
@pytest.mark.parametrize("match", LAST)
def test_a_kill_between_two_steps_leaves_nothing_in_the_finished_store(
    tmp_path: Path, driver: Driver, unbroken: dict[str, bytes], match: str
) -> None:
    path = tmp_path / "f.zarr"
    assert not driver.run(path, match=match, at=1)
    assert driver.run(path)
    equal(path, unbroken)


@pytest.mark.slow
def test_a_kill_while_an_old_store_is_replaced_leaves_one_of_them_and_the_command_ends_with_the_new(
    tmp_path: Path, driver: Driver, unbroken: dict[str, bytes]
) -> None:
    path = tmp_path / "f.zarr"
    assert driver.run(path, "encoder.seed=1")
    assert not driver.run(path, "store.overwrite=true", match=r"^os\.rename \S+/store ", at=1)
    assert [file.parent for file in tmp_path.rglob("manifest.json")]
    assert driver.run(path, "store.overwrite=true")
    assert [file.name for file in tmp_path.iterdir()] == ["f.zarr"]
    equal(path, unbroken)


@pytest.mark.slow
def test_two_processes_make_the_store_of_one_also_when_they_are_killed_and_one_goes_on(
    tmp_path: Path, driver: Driver, unbroken: dict[str, bytes]
) -> None:
    assert driver.run(tmp_path / "two.zarr", world=2)
    equal(tmp_path / "two.zarr", unbroken)
    path = tmp_path / "f.zarr"
    assert not driver.run(path, world=2, victim=1, at=12, save_seconds=0)
    torn(path, random.Random(0))
    assert not driver.run(path, world=1, at=9, by=signal.SIGTERM)
    assert driver.run(path, world=2)
    assert "going on with" in driver.said()
    equal(path, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("worlds", [(1,), (1, 2)])
def test_many_kills_of_one_process_or_two_change_no_byte(
    tmp_path: Path, driver: Driver, unbroken: dict[str, bytes], worlds: tuple[int, ...]
) -> None:
    chance, began, stopped = random.Random(len(worlds)), time.monotonic(), 0
    while time.monotonic() - began < 5:
        path = tmp_path / f"{time.monotonic_ns()}.zarr"
        stopped += until_done(driver, path, chance, worlds)
        equal(path, unbroken)
    assert stopped > 0


def launched(path: Path, world: int, *words: str) -> subprocess.Popen[bytes]:
    several = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(world), "-m"] if world > 1 else []
    return subprocess.Popen(
        [sys.executable, "-m", *several, "satdifuser", "extract", *WORDS, f"store.path={path}", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )


@pytest.mark.slow
def test_real_processes_that_are_killed_after_random_times_make_the_same_store(tmp_path: Path, driver: Driver) -> None:
    long = ["data.splits.train.length=200"]
    assert driver.run(tmp_path / "whole.zarr", *long)
    chance, path, stopped = random.Random(1), tmp_path / "f.zarr", 0
    for world, by in ((2, signal.SIGKILL), (1, signal.SIGTERM), (2, None)):
        plan = path.with_name("f.zarr.partial") / "progress" / "plan.json"  # it is written when a run begins
        before = plan.stat().st_mtime_ns if plan.exists() else 0
        process = launched(path, world, *long)
        while by is not None and process.poll() is None:
            if plan.exists() and plan.stat().st_mtime_ns != before:
                time.sleep(chance.uniform(0, 0.6))
                stopped += process.poll() is None
                workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                for number in (process.pid, *map(int, workers)):  # torchrun's workers are in sessions of their own
                    os.kill(number, by)
                break
            time.sleep(0.01)
        code = process.wait()
        if path.exists():
            break
        assert code != 0
    assert stopped > 0
    equal(path, content(tmp_path / "whole.zarr"))
