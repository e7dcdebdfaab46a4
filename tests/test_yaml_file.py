"""YAML of settings: what it means is what OmegaConf reads; what would take a machine down is refused at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from satdifuser.config import compose
from satdifuser.errors import UserError
from satdifuser.settings.commands import TrainSettings
from satdifuser.yaml_file import load_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGED = "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}}}\n" for n in range(1, 40))
BOMBS = {
    "laughs": LAUGHS,
    "mappings": MERGED,
    "itself": "a: &a [*a, *a]\n",
    "nested lists": "a: " + "[" * 50_000 + "]" * 50_000,
    "open lists": "a: " + "[" * 200_000,
    "nested mappings": "".join(f"{' ' * n}a:\n" for n in range(500)) + " " * 500 + "a: 1\n",
    "large": "a: " + "x" * 200_000_000,
    "many": "a: [" + "1, " * 200_000 + "1]",
    "no mapping": "- 1\n- 2\n",
    "empty": "",
    "cut": "a: {b: 1, c",
    "twice": "a: 1\na: 2\n",
    "python": "a: !!python/object/apply:os.system [id]\n",
    "binary": "\x00\x01\x02",
    "tabs": "a:\n\t- b\n",
    "odd keys": "? [1, 2]\n: 3\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_is_no_settings_file_is_refused_in_a_second_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(BOMBS[kind])
    started = time.perf_counter()
    with pytest.raises(UserError) as refused:
        load_yaml(path, "train it again")
    assert time.perf_counter() - started < 2
    said = str(refused.value)
    assert str(path) in said
    assert said.endswith(": train it again")
    assert "\n" not in said
    assert len(said) < 500


def test_text_that_is_no_utf_8_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        load_yaml(path)


def test_the_settings_of_a_run_are_read_as_they_were_written(tmp_path: Path) -> None:
    settings = compose("train", ["encoder=small_vit", "adapter=lora", "trainer.lr=1e-3", "run=a (b) = é"]).but(
        init="${x}"
    )
    path = tmp_path / "config.yaml"
    path.write_text(settings.yaml(), encoding="utf-8")
    assert load_yaml(path) == settings.plain()
    assert TrainSettings(**load_yaml(path)) == settings
    assert settings.run == "a (b) = é"


def test_aliases_stand_for_what_they_name(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text("base: &base {lr: 1e-3, steps: 5}\none: *base\ntwo: {<<: *base, steps: 7}\n")
    assert load_yaml(path) == {
        "base": {"lr": 1e-3, "steps": 5},
        "one": {"lr": 1e-3, "steps": 5},
        "two": {"lr": 1e-3, "steps": 7},
    }
