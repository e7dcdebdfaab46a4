"""A run that is told to stop keeps what it has done, and goes on as if it had never stopped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from satdifuser.engine import trainer as trainers
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.interrupt import AGAIN, Interrupted, Stop
from satdifuser.engine.trainer import Trainer

Make = Callable[..., Trainer]


def signalled(number: int = signal.SIGINT) -> None:
    """A signal to this process; it is noted before this comes back."""
    os.kill(os.getpid(), number)


def told_in_step(trainer: Trainer, after: int, number: int = signal.SIGINT, times: int = 1) -> None:
    """The trainer gets a signal in the step after these."""
    step = trainer._step

    def stepped(*args: Any) -> dict[str, Any]:
        if trainer.state.step == after:
            for _ in range(times):
                signalled(number)
        return step(*args)

    trainer._step = stepped  # type: ignore[method-assign]


def same(one: Trainer, other: Trainer) -> None:
    """Weights, moments, log and state are the same, bit for bit."""
    assert one.run.rows() == other.run.rows()
    assert one.state == other.state
    for path, beside in ((one.run.last, other.run.last), (one.run.best, other.run.best)):
        assert load_checkpoint(path)[0] == load_checkpoint(beside)[0]
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    moments = [t.optimizer.state_dict()["state"] for t in (one, other)]
    assert moments[0].keys() == moments[1].keys()
    for index, values in moments[0].items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(moments[1][index][name])), (index, name)


@pytest.mark.parametrize(("head", "number"), [("gw", signal.SIGINT), ("moe", signal.SIGTERM)])
def test_a_run_that_is_stopped_before_its_first_evaluation_goes_on_to_the_same_bits(
    toy_trainer: Make, head: str, number: int
) -> None:
    whole = toy_trainer("whole", head=head, eval_every=6, max_steps=9)
    whole.fit()
    broken = toy_trainer("broken", head=head, eval_every=6, max_steps=9)
    told_in_step(broken, 3, number, times=2)  # as torchrun does
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"^at step 4 of 9, which .*broken keeps$") as stopped:
        broken.fit()
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert not broken.run.best.exists()
    resumed = toy_trainer("broken", head=head, eval_every=6, max_steps=9)
    resumed.resume()
    assert (resumed.state.step, [row["step"] for row in resumed.run.rows()]) == (4, [1, 2, 3, 4])
    resumed.fit()
    same(whole, resumed)


@pytest.mark.parametrize("where", ["step", "evaluation"])
@pytest.mark.parametrize("step", [2, 8])
def test_a_look_that_was_interrupted_or_left_out_comes_first_when_the_run_goes_on(
    toy_trainer: Make, monkeypatch: pytest.MonkeyPatch, where: str, step: int
) -> None:
    whole = toy_trainer("whole")
    whole.fit()
    broken, evaluate = toy_trainer("broken"), trainers.evaluate
    if where == "step":
        told_in_step(broken, step - 1)
    else:

        def looked(*args: Any) -> Any:
            if broken.state.step == step:
                signalled()
                raise AssertionError("it went on")
            return evaluate(*args)

        monkeypatch.setattr(trainers, "evaluate", looked)
    with pytest.raises(Interrupted, match=f"^at step {step} of 8"):
        broken.fit()
    monkeypatch.setattr(trainers, "evaluate", evaluate)
    assert [row["step"] for row in broken.run.rows()] == list(range(1, step))
    resumed = toy_trainer("broken")
    resumed.resume()
    resumed.fit()
    same(whole, resumed)


def test_a_signal_while_the_last_checkpoint_is_written_is_not_lost(
    toy_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, save = toy_trainer(), trainers.save_checkpoint

    def saved(path: Path, state: Any, *rest: Any) -> None:
        if state.step == 8:
            signalled()
        save(path, state, *rest)

    monkeypatch.setattr(trainers, "save_checkpoint", saved)
    with pytest.raises(Interrupted, match=r"^at step 8 of 8"):
        trainer.fit()
    assert load_checkpoint(trainer.run.last)[0].row is None


def test_a_second_signal_after_a_while_stops_in_the_middle_of_a_step(
    toy_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = toy_trainer()
    monkeypatch.setattr("satdifuser.engine.interrupt.AGAIN", 0.0)
    told_in_step(trainer, 3, times=2)
    with pytest.raises(Interrupted, match=r"^in step 4 of 8$"):
        trainer.fit()
    assert load_checkpoint(trainer.run.last)[0].step == 2  # the last evaluation's
    assert AGAIN >= 1


@pytest.mark.parametrize(("step", "says"), [(0, "before its first step"), (3, "at step 2 of 8, which")])
def test_a_run_that_waits_for_data_stops_at_once(toy_trainer: Make, step: int, says: str) -> None:
    """One batch is read ahead of the step that is done."""
    trainer = toy_trainer(eval_every=8)
    read = trainer.batches

    class Waiting:
        def __iter__(self) -> Any:
            for number, batch in enumerate(read):
                if number == step:
                    signalled()
                    raise AssertionError("it went on")
                yield batch

    trainer.batches = Waiting()  # type: ignore[assignment]
    with pytest.raises(Interrupted, match=f"^{says}"):
        trainer.fit()
    assert trainer.run.last.exists() == (step > 0)


def test_workers_that_the_signal_has_ended_are_no_error_of_the_data() -> None:
    """A batch system sends SIGTERM to all processes of a job."""
    stop = Stop()

    def batches() -> Any:
        yield 1
        signalled(signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")

    with stop:
        assert list(stop.reading(batches(), alone=False)) == [1]
    assert stop.number == signal.SIGTERM
    with Stop() as other, pytest.raises(ZeroDivisionError):
        list(other.reading((1 // number for number in (1, 0)), alone=True))


def test_handlers_of_others_stay_and_other_threads_have_none(toy_trainer: Make) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with Stop() as stop:
            signalled(signal.SIGTERM)
        assert (heard, stop.number) == ([signal.SIGTERM], None)
    finally:
        signal.signal(signal.SIGTERM, before)
    trainer, done = toy_trainer(), []
    thread = threading.Thread(target=lambda: done.append(trainer.fit().step))
    thread.start()
    thread.join()
    assert done == [8]
