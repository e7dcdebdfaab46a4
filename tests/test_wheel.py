"""The wheel works from any folder, with its configurations and weights inside."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_a_wheel_carries_configurations_and_weights_and_runs_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(tmp_path.glob("satdifuser-*.whl"))
    assert wheel.stat().st_size < 30e6
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"satdifuser", "deflect"}
    assert {"satdifuser/py.typed", "deflect/py.typed"} <= set(names)
    code = (
        "import sys; sys.path.insert(0, 'site'); import satdifuser; assert 'site' in satdifuser.__file__;"
        "from satdifuser.cli import main; sys.exit(main(['train', '--help']) or main(['extract', 'data.size=16',"
        "'data.splits.train.length=2', 'data.splits.val.length=1', 'data.splits.test.length=1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "concat, gw, levels, lw, mean, moe" in done.stdout
    assert (tmp_path / "features.zarr" / "zarr.json").is_file()
