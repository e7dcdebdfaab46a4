"""Several processes that fill one store: each sample by one of them, and the bytes of one process alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from satdifuser.bank import BankSpec
from satdifuser.store import FeatureStore, Processes, StoreWriter

Files = Callable[[Path], dict[str, bytes]]


class Together:
    """Threads in the place of processes: what all share is said and awaited through a barrier."""

    def __init__(self, rank: int, world: int, barrier: threading.Barrier, said: list[Any]) -> None:
        self.rank, self.world, self.barrier, self.said = rank, world, barrier, said

    @property
    def main(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        self.barrier.wait(20)

    def told(self, value: Any) -> Any:
        if self.main:
            self.said.append(value)
        self.wait()
        return self.said[-1]

    def gathered(self, values: list[Any]) -> list[Any]:
        raise AssertionError("a writer has nothing to gather")


@pytest.fixture
def few(make: Any, small_spec: BankSpec) -> Any:
    return make({"train": 19, "val": 4}, small_spec)


def launch(path: Path, made: Any, plan: Any, world: int, fails: int = -1) -> tuple[list[list[range]], list[str]]:
    """What each process had to do, and what each raised; process `fails` does so halfway, and then all are stopped."""
    barrier, said = threading.Barrier(world), []
    todo: list[list[range]] = [[] for _ in range(world)]
    raised = [""] * world

    def work(rank: int) -> None:
        try:
            with StoreWriter(path, plan, Together(rank, world, barrier, said)) as writer:  # type: ignore[arg-type]
                todo[rank] = writer.todo
                batches = list(made.batches(writer.todo))
                for number, (bank, batch) in enumerate(batches):
                    if rank == fails and number == len(batches) // 2:
                        raise RuntimeError("mine")
                    writer.append(bank, batch)
                if rank == fails and not batches:
                    raise RuntimeError("mine")
        except BaseException as error:
            barrier.abort()  # as a launcher stops the others
            raised[rank] = type(error).__name__

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return todo, raised


@pytest.mark.parametrize("world", [2, 3, 16])
def test_several_processes_write_the_bytes_of_one(tmp_path: Path, few: Any, files_of: Files, world: int) -> None:
    plan = few.plan("int8", shard_bytes=25)
    few.write(tmp_path / "one", plan)
    todo, raised = launch(tmp_path / "many", few, plan, world)
    assert raised == [""] * world
    assert sorted(row for mine in todo for rows in mine for row in rows) == list(range(23))
    assert max(map(len, todo)) - min(map(len, todo)) <= 1
    assert files_of(tmp_path / "many") == files_of(tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "one"]


@pytest.mark.parametrize("number", range(6))
def test_what_some_processes_began_others_finish(tmp_path: Path, few: Any, files_of: Files, number: int) -> None:
    random.seed(number)
    plan = few.plan("int8", shard_bytes=25)
    few.write(tmp_path / "one", plan)
    first, second, last = (random.randint(1, 5) for _ in range(3))
    for world in (first, second):
        fails = random.randrange(world)
        _, raised = launch(tmp_path / "many", few, plan, world, fails)
        assert raised[fails] == "RuntimeError"
        assert not (tmp_path / "many").exists()
    todo, raised = launch(tmp_path / "many", few, plan, last)
    assert raised == [""] * last
    assert sum(len(rows) for mine in todo for rows in mine) < 23  # what was done is not done again
    assert files_of(tmp_path / "many") == files_of(tmp_path / "one")
    assert FeatureStore(tmp_path / "many").split("val").batch([3])["id"] == [few.names[22]]


def test_one_process_alone_waits_for_nobody() -> None:
    alone = Processes()
    assert alone.main
    alone.wait()
    assert alone.told([1]) == [1]
    assert alone.gathered([1]) == [1]


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Processes.launched() == Processes(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Processes.launched() == Processes(0, 1)
