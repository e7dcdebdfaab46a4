"""A run that trains on a store is tested on that store, whatever lies at its path by then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from satdifuser.commands import eval as evaluation
from satdifuser.commands import extract, train
from satdifuser.config import compose
from satdifuser.engine.trainer import Trainer
from satdifuser.errors import UserError

ENCODER = ["encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21, 161]"]


@pytest.fixture
def stored(tmp_path: Path, tiny_data: list[str]) -> Callable[..., Path]:
    def run(path: str, *words: str) -> Path:
        common = [*tiny_data, *ENCODER, f"store.path={tmp_path / path}", "store.dtype=float32"]
        extract.run(compose("extract", [*common, *words]))
        return tmp_path / path

    return run


@pytest.mark.slow
@pytest.mark.parametrize("way", ["moved away", "written anew"])
def test_a_run_whose_store_is_replaced_is_tested_on_its_own_store_or_ends_with_an_error(
    tmp_path: Path,
    tiny: list[str],
    stored: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    first = stored("f.zarr")
    config: Any = [*tiny, *ENCODER, "task=classification", f"features={first}"]
    expected = train.run(compose("train", [*config, f"run={tmp_path / 'one'}"]), quiet=True, draw=False)
    fit = Trainer.fit

    def replaced(trainer: Trainer) -> Any:
        state = fit(trainer)
        if way == "moved away":
            first.rename(tmp_path / "old.zarr")
            stored("f.zarr", "data.seed=1")
        else:
            stored("f.zarr", "data.seed=1", "store.overwrite=true")
        return state

    monkeypatch.setattr(Trainer, "fit", replaced)
    words = compose("train", [*config, f"run={tmp_path / 'two'}"])
    if way == "moved away":
        found = train.run(words, quiet=True, draw=False)
        assert (found["test"], found["validation"]) == (expected["test"], expected["validation"])
    else:
        with pytest.raises(UserError, match=r"f\.zarr was replaced or removed while it was read"):
            train.run(words, quiet=True, draw=False)
        assert not (tmp_path / "two" / "result.json").exists()


@pytest.mark.slow
def test_a_flipped_bit_ends_a_run_unless_checks_are_switched_off(
    tmp_path: Path, tiny: list[str], stored: Callable[..., Path]
) -> None:
    path = stored("f.zarr")
    file = next((path / "mid_block@21").glob("c.0.*"))
    data = bytearray(file.read_bytes())
    data[5] ^= 1  # of a mantissa: a number that nobody would take for wrong
    file.write_bytes(data)
    words = [*tiny, *ENCODER, "task=classification", f"features={path}", f"run={tmp_path / 'run'}"]
    with pytest.raises(UserError, match=r"mid_block@21/c\.0\.0\.0\.0 is damaged \(mid_block@21 of sample "):
        train.run(compose("train", words), quiet=True, draw=False)
    assert not (tmp_path / "run" / "result.json").exists()
    train.run(compose("train", [*words, "check_features=false"]), quiet=True, draw=False)
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_eval_reads_one_store_from_beginning_to_end(
    tmp_path: Path, tiny: list[str], stored: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stored("f.zarr")
    config: Any = [*tiny, *ENCODER, "task=classification", f"features={first}", f"run={tmp_path / 'run'}"]
    expected = train.run(compose("train", config), quiet=True, draw=False)
    score = evaluation.score_split

    def replaced(*args: Any, **kwargs: Any) -> Any:
        first.rename(tmp_path / "old.zarr")
        stored("f.zarr", "data.seed=1")
        return score(*args, **kwargs)

    monkeypatch.setattr(evaluation, "score_split", replaced)
    assert evaluation.run(compose("eval", [f"run={tmp_path / 'run'}"]))["test"] == expected["test"]
    assert json.loads((tmp_path / "run" / "eval-test.json").read_text())["test"] == expected["test"]
