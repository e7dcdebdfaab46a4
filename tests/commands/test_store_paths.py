"""Stores under names that people give to folders: every `store` command takes them as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.cli import main
from satdifuser.data.base import Labels
from satdifuser.store import FeatureStore, Form, StorePlan, StoreWriter

NAMES = [
    *(
        "a=b.zarr",
        "a=b=c",
        "=",
        "timesteps.zarr",
        "two words",
        " blank ",
        "it's",
        'say "so"',
        "(1)",
        "a^2",
        "x~",
        "~x",
        "#1",
    ),
    *("é漢🛰.zarr", "a,b", "[1,2]", "{a}", "$HOME", "100%", "a;b", "a&b", "*", "a:b", "-", "back\\slash"),
]


def write(path: Path | str, prefix: str) -> None:
    spec, form, ids = (
        BankSpec((Tap("mid", 21, 0, 3, 8), Tap("up", 21, 1, 2, 8)), "toy", "abc", (16, 16)),
        Form(),
        ["a", "b"],
    )
    names = [prefix + name for name in ids]
    plan = StorePlan(spec, form, {"train": names}, Labels(("a",), ("#000000",)), {"train": {}})
    with StoreWriter(path, plan) as writer:
        writer.append(FeatureBank(spec, {tap: torch.randn(2, *spec.shape(tap)) for tap in spec.taps}), {"id": names})


@pytest.fixture
def satdifuser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["store", *words])
        found = capsys.readouterr()
        assert found.err == "" or code
        return code, found.out + found.err

    return run


@pytest.mark.parametrize("name", NAMES)
def test_every_command_takes_any_name(tmp_path: Path, satdifuser: Callable[..., Any], name: str) -> None:
    write(name, "one-")
    write(f"{name}.other", "two-")
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}.other", "home"}
    code, said = satdifuser("info", name)
    assert (code, said.splitlines()[0]) == (0, name)
    assert satdifuser("verify", name)[0] == 0
    assert satdifuser("merge", f"{name}.both", name, f"{name}.other") == (
        0,
        f"wrote {name}.both: 4 samples of {name}, {name}.other\n",
    )
    assert satdifuser("prune", name, f"{name}.small", "taps=up")[0] == 0
    assert FeatureStore(tmp_path / f"{name}.both").split("train").ids == ["one-a", "one-b", "two-a", "two-b"]
    assert [tap.name for tap in FeatureStore(f"{name}.small").spec.taps] == ["up"]


def test_a_tilde_is_the_users_folder(tmp_path: Path, satdifuser: Callable[..., Any]) -> None:
    write("~/f.zarr", "one-")
    write(Path("~/g.zarr"), "two-")
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["f.zarr", "g.zarr"]
    assert satdifuser("info", "~/f.zarr")[1].splitlines()[0] == str(tmp_path / "home" / "f.zarr")
    assert satdifuser("verify", "~/f.zarr")[0] == 0
    assert satdifuser("merge", "~/both", "~/f.zarr", "~/g.zarr")[0] == 0
    assert satdifuser("prune", "~/both", "~/small", "taps=up")[0] == 0
    assert len(FeatureStore(Path("~/small")).split("train")) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


def test_a_path_that_begins_as_an_option_is_told_apart_by_its_folder(satdifuser: Callable[..., Any]) -> None:
    write("taps=up", "one-")
    code, said = satdifuser("verify", "taps=up")
    assert code == 2
    assert "satdifuser store verify STORE" in said
    assert "./taps=" in said
    assert satdifuser("verify", "./taps=up")[0] == 0
