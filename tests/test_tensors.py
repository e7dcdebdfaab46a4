"""Tensors out of files: what lies beside them is neither kept nor run, and every wrong file is one line."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from satdifuser.tensors import Inert, TensorsError, read_tensors

CONFIG = {"model": {"heads": [1, 2, None], "name": "gw", "lr": 1e-2, "on": True}, "data": {"root": "${oc.env:HOME}"}}


def weights() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.randn(3, 4), "a.bias": torch.randn(3, dtype=torch.float64), "n": torch.tensor(7)}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


class Runs:
    """What a pickle may ask for: a function, and what it is called with."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.call = function, given

    def __reduce__(self) -> Any:
        return self.call


class Somebodys:
    pass


BESIDE = {
    "nothing": lambda: {},
    "an omegaconf configuration": lambda: {"config": OmegaConf.create(CONFIG)},
    "one of it that is a list": lambda: {"config": OmegaConf.create([1, {"a": "b"}])},
    "arguments": lambda: {"args": argparse.Namespace(lr=0.1, out=Path("/tmp/x"), more=SimpleNamespace(a=1))},
    "numpy's numbers": lambda: {"best": np.float64(0.7), "n": np.int64(3), "curve": np.ones((2, 3))},
    "a dictionary with a default": lambda: {"seen": defaultdict(list, {"a": [1]})},
    "types": lambda: {"types": [int, dict, str, float, list, bool, Any], "set": frozenset({1})},
}


@pytest.mark.parametrize("beside", list(BESIDE))
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_read_and_what_lies_beside_them_is_not(tmp_path: Path, beside: str, zipped: bool) -> None:
    state = weights()
    content = {"epoch": 3, "state": state, **BESIDE[beside](), "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}}}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    expected = {f"state.{name}": value for name, value in state.items()}
    assert_same(read_tensors(tmp_path / "a.pth"), {**expected, "optimizer.state.0.step": torch.tensor(4.0)})


def test_safetensors_are_read_by_the_same_names(tmp_path: Path) -> None:
    state = weights()
    save_file(state, tmp_path / "a.safetensors")
    assert_same(read_tensors(str(tmp_path / "a.safetensors")), state)


def test_a_configuration_is_not_even_imported(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "config": OmegaConf.create(CONFIG)}, tmp_path / "a.pth")
    code = (
        "import sys; from pathlib import Path; from satdifuser.tensors import read_tensors;"
        f"print(sorted(read_tensors(Path({str(tmp_path / 'a.pth')!r}))), 'omegaconf' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['w'] False"


def test_the_inert_object_keeps_nothing() -> None:
    made = Inert(1, "two", three=3)
    made.__setstate__({"four": 4})
    assert vars(made) == {}


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.system, r"\w+\.system"),
        (os.mkdir, r"\w+\.mkdir"),
        (eval, r"(builtins\.)?eval"),
        (getattr, r"(builtins\.)?getattr"),
        (exec, r"(builtins\.)?exec"),
        (subprocess.check_call, r"\w+\.check_call"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("hidden", [False, True])
def test_what_a_pickle_wants_to_run_is_named_and_not_run(
    tmp_path: Path, function: Any, named: str, zipped: bool, hidden: bool
) -> None:
    sign = tmp_path / "sign"
    given: Any = {
        os.system: f"touch {sign}",
        os.mkdir: str(sign),
        eval: f"open({str(sign)!r}, 'w')",
        exec: f"open({str(sign)!r}, 'w')",
        subprocess.check_call: ["touch", str(sign)],
    }.get(function, sign)
    more = ("exists",) if function is getattr else ()
    trap: Any = Runs(function, given, *more)
    if hidden:  # in the state of an object that is let through
        trap = argparse.Namespace(inside=[trap])
    torch.save({"w": torch.ones(2), "trap": trap}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(TensorsError, match=rf"a\.pth asks for {named}, and what a pickle asks for is not run") as error:
        read_tensors(tmp_path / "a.pth")
    assert "\n" not in str(error.value)
    assert not sign.exists()


def test_a_class_that_is_not_known_to_be_harmless_is_refused_by_its_name(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "x": Somebodys()}, tmp_path / "a.pth")
    with pytest.raises(TensorsError, match=r"a\.pth asks for [\w.]*test_tensors\.Somebodys"):
        read_tensors(tmp_path / "a.pth")


def test_what_is_let_through_once_is_not_let_through_by_torch_afterwards(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "args": argparse.Namespace(a=1)}, tmp_path / "a.pth")
    read_tensors(tmp_path / "a.pth")
    with pytest.raises(Exception, match=r"argparse\.Namespace"):
        torch.load(tmp_path / "a.pth", weights_only=True)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.bin"])
@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"<html>not found</html>", b"PK\x03\x04" + bytes(90)])
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TensorsError, match=rf"{name} is damaged or no file of weights \(.+\): fetch it again") as error:
        read_tensors(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_file_that_is_cut_short_is_one_line(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TensorsError, match=r"a\.pth is damaged or no file of weights"):
        read_tensors(tmp_path / "a.pth")


def test_a_nest_that_holds_itself_is_one_line(tmp_path: Path) -> None:
    nest: dict[str, Any] = {"w": torch.ones(2)}
    nest["again"] = nest
    torch.save(nest, tmp_path / "a.pth")
    with pytest.raises(TensorsError, match=r"a\.pth is damaged"):
        read_tensors(tmp_path / "a.pth")


def test_no_file_and_no_tensors_are_said(tmp_path: Path) -> None:
    with pytest.raises(TensorsError, match=r"no file .*gone\.pth: weights \(\.safetensors, \.pth, "):
        read_tensors(tmp_path / "gone.pth")
    torch.save({"epoch": 3, "config": OmegaConf.create(CONFIG)}, tmp_path / "a.pth")
    with pytest.raises(TensorsError, match=r"a\.pth holds no tensors"):
        read_tensors(tmp_path / "a.pth")
