"""The commit that a result was made with: of a checkout that tracks the package, and of no other."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from satdifuser.engine import commit as module


def git(folder: Path, *words: str) -> str:
    line = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *words]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_a_checkout_says_its_commit_and_whether_files_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(module, "__file__", str(package / "engine" / "commit.py"))
    monkeypatch.setattr(module.metadata, "distribution", lambda _: (_ for _ in ()).throw(KeyError()))
    git(tmp_path, "init", "-q")
    assert module.commit.__wrapped__() is None  # nothing of it is tracked
    git(tmp_path, "add", "package/__init__.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert module.commit.__wrapped__() == head
    (tmp_path / "beside.txt").write_text("not of the package")
    assert module.commit.__wrapped__() == head
    (package / "__init__.py").write_text("x = 1\n")
    assert module.commit.__wrapped__() == f"{head}+changes"


def test_a_package_that_pip_installed_from_a_commit_says_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "engine" / "commit.py"))
    known = '{"url": "u", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}}'

    class Installed:
        def __init__(self, text: str | None) -> None:
            self.text = text

        def read_text(self, name: str) -> str | None:
            return self.text if name == "direct_url.json" else None

    for text, said in ((known, "0123456789ab"), (None, None), ('{"url": "u"}', None)):
        monkeypatch.setattr(module.metadata, "distribution", lambda _, text=text: Installed(text))
        assert module.commit.__wrapped__() == said
