"""Progress where there is no terminal: whole lines, each so often."""

from __future__ import annotations

import pytest

from satdifuser.engine import progress


def test_a_log_file_gets_lines_and_no_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take a file for a terminal
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.bar("steps") as shown:
        task = shown.add_task("training", total=200)
        for _ in range(200):
            now[0] += 1
            shown.advance(task)
    said = capsys.readouterr().err
    assert [line.partition(" steps")[0] for line in said.splitlines()] == [
        f"training: {n}/200" for n in (10, 70, 130, 190)
    ]
    assert "\r" not in said
    with progress.bar("steps", quiet=True) as shown:
        now[0] += 1000
        shown.advance(shown.add_task("training", total=2))
    assert not capsys.readouterr().err
