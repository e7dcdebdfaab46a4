"""The small files of a run: JSON that any reader takes, damage by name, and errors of the disk in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from satdifuser.engine.files import json_text, read_json, write_text
from satdifuser.engine.log import check_scores
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError


def strict(text: str) -> object:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_no_number_is_written_as_null(tmp_path: Path) -> None:
    row = {"step": 1, "loss": 0.5, "grad_norm": math.inf, "more": [math.nan, {"x": -math.inf}], "words": ("a", None)}
    assert strict(json_text(row)) == {**row, "grad_norm": None, "more": [None, {"x": None}], "words": ["a", None]}
    folder = RunFolder(tmp_path)
    folder.log(row)
    folder.log({"step": 2, "grad_norm": 0.25})
    folder.write_json("some.json", row)
    folder.forget_after(2)
    for line in folder.metrics.read_text().splitlines():
        strict(line)
    assert [one["grad_norm"] for one in folder.rows()] == [None, 0.25]
    assert strict((tmp_path / "some.json").read_text())


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": ', b"[1, 2]", b"null", b"5", b"\xff\xfe\x00", b"\x00" * 40, b"[" * 100_000]
)
def test_a_damaged_file_is_one_line_with_its_name_and_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_json(path, dict, "train it again")
    said = str(refused.value)
    assert said.startswith(f"{path} is damaged (")
    assert said.endswith(": train it again")
    assert "\n" not in said


def test_a_text_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_text(tmp_path / "result.json", "old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"the disk filled up while writing .*result\.json: free space and start again"):
        write_text(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("result.json", "old")]


@pytest.mark.parametrize("name", ["x" * 300, "file/under", "file"], ids=["long", "below a file", "a file"])
def test_a_place_that_cannot_be_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"{name} could not be .*another"), RunFolder(tmp_path / name).alone():
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_rows_that_are_none_are_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_bytes(b'{"step": 1}\n[1]\n5\n\xff\xfe\n{"loss": 1}\n{"step": "a"}\n{"step": 2}\n{"st')
    assert [row["step"] for row in folder.rows()] == [1, 2]
    folder.forget_after(1)
    assert folder.metrics.read_text() == '{"step": 1}\n'


@pytest.mark.parametrize("name", ["loss", "miou"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_no_number_ends_a_run(name: str, value: float) -> None:
    scores = {"loss": 0.5, "miou": 0.1, "other": math.nan}
    check_scores(scores, "miou", "here")
    with pytest.raises(UserError, match=f"{name} is {value} on the split val"):
        check_scores({**scores, name: value}, "miou", "on the split val")
