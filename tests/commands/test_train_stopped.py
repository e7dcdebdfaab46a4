"""`satdifuser train` that is interrupted prints the whole command that goes on, and that command goes on."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from satdifuser.cli import main
from satdifuser.engine.run import RunFolder
from satdifuser.engine.trainer import Trainer


def signalled_in_step(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The second step of the next run gets a signal."""
    step = Trainer._step

    def stepped(self: Trainer, *args: Any) -> dict[str, Any]:
        if self.state.step == 1:
            os.kill(os.getpid(), number)
        return step(self, *args)

    monkeypatch.setattr(Trainer, "_step", stepped)


@pytest.mark.slow
def test_the_command_that_an_interrupted_run_prints_goes_on_to_the_same_result(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*tiny, "encoder=colours", "trainer.eval_every=4", "overwrite=true"]
    assert main(["train", *words, f"run={tmp_path / 'whole'}"]) == 0
    folder = tmp_path / "a run"
    capsys.readouterr()
    with monkeypatch.context() as patched:
        signalled_in_step(patched, signal.SIGTERM)
        assert main(["train", *words, f"run={folder}"]) == 143
    said = capsys.readouterr().err
    told = said.splitlines()[-1]
    assert "Traceback" not in said
    assert told.startswith(
        f"satdifuser: interrupted at step 2 of 4, which {folder} keeps: go on with  satdifuser train "
    )
    command = shlex.split(told.partition("go on with  ")[2])
    assert command[-1] == "resume=true"
    assert "overwrite=true" not in command
    assert main(command[1:]) == 0
    whole, again = (json.loads((path / "result.json").read_text()) for path in (tmp_path / "whole", folder))
    assert again["test"] == whole["test"]
    assert RunFolder(folder).rows() == RunFolder(tmp_path / "whole").rows()


def test_a_run_that_has_no_checkpoint_yet_is_told_of_none(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor of that of an older run in its folder, which it would have replaced."""
    last = RunFolder(tmp_path / "run").last
    for old in (False, True):
        if old:
            last.parent.mkdir(parents=True)
            last.write_bytes(b"old")

        def opened(*args: Any, **words: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr("satdifuser.commands.train.open_split", opened)
        assert main(["train", *tiny, "encoder=colours", "overwrite=true", f"run={tmp_path / 'run'}"]) == 130
        assert capsys.readouterr().err.splitlines()[-1] == "satdifuser: interrupted"
