"""The folder of a run: what is removed first where an old one makes room."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from satdifuser.engine.run import RunFolder


def test_a_kill_while_an_old_run_is_removed_leaves_no_result_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints go after its result: else a folder that is begun anew would count as done."""
    folder = RunFolder(tmp_path / "run").open(resume=False, overwrite=False)
    for file in (folder.last, folder.result, folder.config):
        file.write_text("{}")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.open(resume=False, overwrite=True)
    assert not folder.result.exists()
    assert folder.last.is_file()
