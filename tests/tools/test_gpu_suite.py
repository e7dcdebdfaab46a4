"""The GPU suite: parts in turn, each with its limit; what fails or is cut off is recorded, and the rest goes on."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# A benchmark in small: a row, then what the words say.
BENCH = (
    "import json, sys, time; from pathlib import Path\n"
    "table = dict(title='speeds', columns=dict([('what', ''), ('images/s', '.1f')]), rows=[['ours', 2.0]])\n"
    "Path(sys.argv[1]).write_text(json.dumps(dict(about=dict(machine='M'), tables=[table])))\n"
    "print('measured'); "
)


@pytest.fixture
def suite(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("gpu_suite")


def arguments(folder: Path, minutes: float = 1, **others: Any) -> argparse.Namespace:
    common = {"out": folder / "out", "work": None, "tiny": False, "data": None, "again": []}
    return argparse.Namespace(**{**common, "minutes": minutes, **others})


def part(suite: ModuleType, name: str, then: str = "", seconds: float | None = 600.0) -> Any:
    return suite.Part(name, "", "", ("{python}", "-c", BENCH + then, "{json}"), seconds)


def kept(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "suite.json").read_text())
    return found


def test_a_part_that_fails_is_recorded_and_the_next_one_is_done(suite: ModuleType, tmp_path: Path) -> None:
    run = suite.Suite(arguments(tmp_path))
    run.run(part(suite, "bad", "sys.exit('the card is on fire')"))
    run.run(part(suite, "good"))
    assert kept(tmp_path)["bad"]["status"] == "failed with code 1"
    assert kept(tmp_path)["good"]["status"] == "done"
    for name in ("bad", "good"):  # what it had measured is kept
        assert kept(tmp_path)[name]["tables"][0]["rows"] == [["ours", 2.0]]
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "the card is on fire" in log
    text = (tmp_path / "out" / "suite.md").read_text()
    assert "| bad | failed with code 1 |" in text
    assert text.count("| ours | 2.0 |") == 2


def test_results_that_cannot_be_read_are_that_parts_failure_alone(suite: ModuleType, tmp_path: Path) -> None:
    run = suite.Suite(arguments(tmp_path))
    run.run(part(suite, "broken", "Path(sys.argv[1]).write_text('no JSON')"))
    run.run(part(suite, "good"))
    assert kept(tmp_path)["broken"]["status"].startswith("failed: JSONDecodeError")
    assert kept(tmp_path)["good"]["status"] == "done"


def test_a_part_that_takes_too_long_is_ended_with_all_its_processes(suite: ModuleType, tmp_path: Path) -> None:
    sleeper = tmp_path / "sleeper"
    child = tmp_path / "child.py"
    child.write_text(f"import time; time.sleep(8); open({str(sleeper)!r}, 'w')")
    then = f"import subprocess; subprocess.Popen([sys.executable, {str(child)!r}]); time.sleep(60)"
    run = suite.Suite(arguments(tmp_path, minutes=suite.MINUTES))
    began = time.monotonic()
    run.run(part(suite, "long", then, seconds=suite.LEAST))
    assert time.monotonic() - began < 30
    assert kept(tmp_path)["long"]["status"] == "cut off by its time limit"
    assert kept(tmp_path)["long"]["tables"][0]["rows"] == [["ours", 2.0]]
    time.sleep(4)
    assert not sleeper.exists()


def test_the_same_command_does_what_is_not_done(suite: ModuleType, tmp_path: Path) -> None:
    for _ in range(2):
        run = suite.Suite(arguments(tmp_path))
        run.run(part(suite, "good", "Path('once').open('a').write('x')"))
        run.run(part(suite, "bad", "Path('twice').open('a').write('x'); sys.exit(3)"))
    work = tmp_path / "out-work"
    assert (work / "once").read_text() == "x"
    assert (work / "twice").read_text() == "xx"
    suite.Suite(arguments(tmp_path, again=["good"])).run(part(suite, "good", "Path('once').open('a').write('x')"))
    assert (work / "once").read_text() == "xx"


def test_a_part_for_which_no_time_is_left_says_so_and_is_done_another_time(suite: ModuleType, tmp_path: Path) -> None:
    suite.Suite(arguments(tmp_path, minutes=0.01)).run(part(suite, "late"))
    assert kept(tmp_path)["late"]["status"] == "no time left"
    suite.Suite(arguments(tmp_path)).run(part(suite, "late"))
    assert kept(tmp_path)["late"]["status"] == "done"


def test_limits_stretch_with_the_minutes(suite: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(suite.Suite, "_process", lambda self, name, command, limit: limits.append(limit) or "done")
    suite.Suite(arguments(tmp_path, minutes=suite.MINUTES * 2)).run(part(suite, "a", seconds=100))
    suite.Suite(arguments(tmp_path, minutes=suite.MINUTES / 2)).run(part(suite, "b", seconds=10000))
    assert limits[0] == 200
    assert limits[1] == pytest.approx(60 * suite.MINUTES / 2, abs=1)  # no more than there is


def test_failed_tests_are_named_with_their_reasons(suite: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_good(): pass\ndef test_bad(): assert 1 == 2\n"
        "def test_near(record_property):\n"
        "    for part in (0.2, 0.7): record_property('agreement', [part, part / 100, 0.01, f'block {part}'])\n"
        "def test_skipped(): pytest.skip('no GPU')\n@pytest.fixture\ndef broken(): raise OSError('gone')\n"
        "def test_broken(broken): pass\n"
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", "x.xml", "test_it.py"]
    subprocess.run(words, cwd=tmp_path, check=False, capture_output=True)
    tables = suite.test_tables(tmp_path / "x.xml")
    assert tables[0]["rows"] == [[5, 2, 2, 1]]
    assert dict(tables[1]["rows"])["test_bad"].startswith("assert 1 == 2")
    assert "gone" in dict(tables[1]["rows"])["test_broken"]
    assert tables[2]["rows"] == [["test_near", 0.7, pytest.approx(0.007), 0.01, "block 0.7"]]


def test_a_dry_run_says_what_each_part_needs_and_does_nothing(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "tools" / "gpu_suite.py"), "--dry-run", "--minutes", "6"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "| tests | 140 |" in done.stdout
    assert "| pretraining | what is left |" in done.stdout
    assert "GiB of the card" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.environ.get("SATDIFUSER_TEST_LONG"), reason="takes minutes: set SATDIFUSER_TEST_LONG=1")
def test_the_tiny_suite_is_green_on_a_cpu_and_its_pretraining_goes_on_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "gpu_suite.py"), "--minutes", "2", "--tiny", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + (tmp_path / "out" / "log.txt").read_text()[-5000:]
    found = kept(tmp_path)
    assert {part["status"] for part in found.values()} == {"done"}
    rows = {name: [len(table["rows"]) for table in part["tables"]] for name, part in found.items()}
    assert rows.pop("tests") == [1, 12]
    assert rows == {
        **{"extract-256": [12], "extract-512": [2, 2], "extract-float32": [2], "extract-compiled": [3]},
        **{"deflect": [3, 1], "training": [1], "store": [8], "pretraining": [1]},
    }
    passed, failed = found["tests"]["tables"][0]["rows"][0][1:3]
    assert passed > 50
    assert failed == 0
    files = [file for file in (tmp_path / "out").iterdir() if file.is_file()]
    assert len(files) <= 8
    assert all(file.stat().st_size <= 16e6 for file in files)
    (tmp_path / "out-work").rename(tmp_path / "another-machine")  # only --out comes along
    again = subprocess.run(
        [*command, "--again", "pretraining"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert again.stdout.count("done before") == len(found) - 1
    assert kept(tmp_path)["pretraining"]["tables"][0]["rows"][0][1:3] == [4, 4]  # steps before, steps now
