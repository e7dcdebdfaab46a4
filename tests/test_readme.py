"""The README's three recipes, run as they are printed: an encoder, a head and a data set of one's own."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

from satdifuser.commands import train
from satdifuser.config import compose

README = Path(__file__).resolve().parent.parent / "README.md"
QUICK = ["fusion.projection_dim=16", "trainer=quick", "trainer.max_steps=2", "trainer.batch_size=4"]
SCENES = ["data.size=16", "data.splits.train.length=8", "data.splits.val.length=2", "data.splits.test.length=2"]


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every block of the README that begins with the name of a file, written to that file."""
    for name, body in re.findall(r"(?m)^    # (my_\S+)\n((?:(?:    (?!# my_).*)?\n)+)", README.read_text()):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(body).strip() + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(recipes: Path, *overrides: str) -> dict:
    config = compose("train", [*QUICK, f"run={recipes / 'run'}", *overrides], [str(recipes / "my_configs")])
    return train.run(config, quiet=True)


def test_the_encoder_of_the_readme_trains(recipes: Path) -> None:
    assert run(recipes, *SCENES, "encoder=ratios")["steps"] == 2


def test_the_head_of_the_readme_trains(recipes: Path) -> None:
    assert run(recipes, *SCENES, "fusion=strongest")["steps"] == 2


def test_the_data_set_of_the_readme_trains(recipes: Path) -> None:
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        folder = recipes / "tiles" / split
        folder.mkdir(parents=True)
        for number in range(count):
            numbers, mask = draw.integers(0, 4000, (13, 20, 20)), draw.integers(0, 3, (20, 20))
            values = {"numbers": numbers.astype(np.uint16), "mask": mask}
            np.savez(folder / f"tile-{number}.npz", **values)
    result = run(recipes, "data=tiles", f"data.root={recipes / 'tiles'}", "data.size=16")
    assert result["samples"] == 3
