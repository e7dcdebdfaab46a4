"""Who uses the packages sees their types: py.typed is there, and mypy finds a wrong call in another's file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = """\
import satdifuser
import deflect
run = satdifuser.load_run("runs/first")
reveal_type(run.classes)
reveal_type(deflect.Band("B04", "red", 664.6).wavelength)
satdifuser.load_encoder(3)
"""
# libraries of others are not read: their types are not what is looked at here
CONFIG = "[mypy]\nfollow_imports = silent\nignore_missing_imports = False\n" + "".join(
    f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = True\n"
    for name in ("torch", "numpy", "pydantic", "diffusers", "torchmetrics", "omegaconf", "annotated_types", "yaml")
)


def test_both_packages_say_that_they_have_types() -> None:
    for package in ("satdifuser", "deflect"):
        assert (ROOT / package / "py.typed").is_file()


@pytest.mark.slow
def test_mypy_sees_the_types_from_outside(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--no-incremental", "mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert any('mine.py:4: note: Revealed type is "tuple[str, ...]"' in line.replace("builtins.", "") for line in lines)
    assert any('mine.py:5: note: Revealed type is "float"' in line.replace("builtins.", "") for line in lines)
    errors = [line for line in lines if ": error:" in line]
    assert len(errors) == 1, done.stdout
    assert 'mine.py:6: error: Argument 1 to "load_encoder" has incompatible type "int"' in errors[0]
