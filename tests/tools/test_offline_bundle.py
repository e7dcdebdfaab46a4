"""A bundle for a machine without network: what is in it, and that it installs and works with nothing but torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from satdifuser.errors import UserError
from satdifuser.optional import OPTIONAL

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHON = "{}.{}".format(*sys.version_info[:2])
SCENES = ["data.size=16", "data.splits.train.length=8", "data.splits.val.length=4", "data.splits.test.length=4"]
RECIPE = ["recipe.steps=2", "recipe.batch_size=4", "recipe.samples=4", "recipe.eval_images=4"]


@pytest.fixture
def bundle(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("offline_bundle")


@pytest.fixture
def installer(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("offline_install")


def names(needs: list[Requirement]) -> set[str]:
    return {canonicalize_name(need.name) for need in needs}


def test_the_optional_libraries_stay_behind_unless_they_are_asked_for(bundle: ModuleType) -> None:
    needed = names(list(map(Requirement, PROJECT["dependencies"])))
    least = names(bundle.wanted(PROJECT, []))
    assert needed - least == {"torchgeo", "rasterio", "transformers", "peft", "timm", "torchvision", "spyndex"} | {
        "kornia",
        "matplotlib",
        "scikit-learn",
        "segmentation-models-pytorch",
        "tensorboard",
    }
    assert least - needed == {"pip", "pytest", "pytest-xdist"}
    assert names(bundle.wanted(PROJECT, ["all"])) >= needed
    some = bundle.wanted(PROJECT, ["timm", "scikit_learn", "xarray>=2025.1"])
    assert {"timm>=1.0.15", "scikit-learn>=1.5", "xarray>=2025.1"} <= set(map(str, some))
    with pytest.raises(UserError, match="--with a b: no package is called that: give all, or torchgeo"):
        bundle.wanted(PROJECT, ["a b"])


def test_torch_is_the_one_that_is_told_or_listed_or_installed_here(bundle: ModuleType) -> None:
    assert bundle.torch_version("2.11", {}) == "2.11.0"
    assert bundle.torch_version("2.11.1", {}) == "2.11.1"
    assert bundle.torch_version(None, {"torch": "2.12.0+cu130"}) == "2.12.0+cu130"
    assert bundle.torch_version("2.12", {"torch": "2.12.1"}) == "2.12.1"
    assert bundle.torch_version(None, {}) == metadata.version("torch")
    with pytest.raises(UserError, match=r"--torch is 2\.11 and --have lists torch 2\.12\.0"):
        bundle.torch_version("2.11", {"torch": "2.12.0"})


def test_a_folder_that_is_no_bundle_is_never_replaced_and_a_bundle_only_if_one_says_so(
    bundle: ModuleType, tmp_path: Path
) -> None:
    bundle.check_place(tmp_path / "new", overwrite=False)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="is there and is no bundle"):
        bundle.check_place(tmp_path, overwrite=True)
    (tmp_path / "bundle.json").touch()
    with pytest.raises(UserError, match="is an earlier bundle: give another folder, or --overwrite"):
        bundle.check_place(tmp_path, overwrite=False)
    bundle.check_place(tmp_path, overwrite=True)


def test_a_bundle_over_the_limit_says_what_is_large_in_it_and_what_to_do(bundle: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    for name, size in (("a.whl", 3), ("b.whl", 1), ("c.whl", 2), ("d.whl", 4)):
        (tmp_path / "wheels" / name).write_bytes(bytes(size * 2**20))
    assert bundle.check_limit(tmp_path, 10) == 10 * 2**20
    words = (
        r"takes 10\.0 MiB, over the limit of 9\.5 \(largest: d\.whl 4\.0, a\.whl 3\.0, c\.whl 2\.0\): bring less with"
    )
    with pytest.raises(UserError, match=words):
        bundle.check_limit(tmp_path, 9.5)


def test_a_bundle_that_fails_leaves_nothing_behind_and_the_earlier_one_as_it_was(
    bundle: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(args: Any, folder: Path, work: Path) -> dict[str, Any]:
        (folder / "bundle.json").write_bytes(bytes(2**20))
        return {"files": {}, "project": None, "python": PYTHON, "torch": "2.11"}

    monkeypatch.setattr(bundle, "fill", fill)
    out = tmp_path / "folder" / "out"
    line = bundle.make(bundle.parser().parse_args([str(out)]))
    assert line.startswith(f"wrote {out}: 1.0 MiB, 0 wheels for Python {PYTHON} and torch 2.11; carry it")
    with pytest.raises(UserError, match="over the limit"):
        bundle.make(bundle.parser().parse_args([str(out), "--overwrite", "--limit-mib", "0.5"]))
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["bundle.json"]


def test_the_installer_finds_what_is_missing_damaged_or_of_another_version(
    installer: ModuleType, bundle: ModuleType, tmp_path: Path
) -> None:
    torch, numpy = (metadata.version(name) for name in ("torch", "numpy"))
    assert installer.check_have([f"torch=={bundle.minor(torch)}", f"numpy=={numpy}", "pytest"]) == []
    (note,) = installer.check_have(["numpy==1.0"])
    assert note == f"numpy is {numpy} here, and was 1.0 in the list that the bundle was made by"
    with pytest.raises(installer.InstallError, match="has no nothing-of-it, nor-this, which the bundle expects"):
        installer.check_have(["nothing-of-it==1.0", "pytest", "nor-this"])
    with pytest.raises(installer.InstallError, match=rf"has torch {torch.split('+')[0]}.*, the bundle is for 1\.13"):
        installer.check_have(["torch==1.13"])
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a.whl").write_bytes(b"content")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part-01.tar.xz").write_bytes(b"images")
    about = bundle.manifest(tmp_path, {})
    (tmp_path / "data" / "part-01.tar.xz").unlink()  # left behind
    installer.check_files(about, tmp_path)
    (tmp_path / "wheels" / "a.whl").write_bytes(b"cont")
    with pytest.raises(installer.InstallError, match=r"a\.whl is damaged \(4 bytes of 7\): carry it again"):
        installer.check_files(about, tmp_path)
    (tmp_path / "wheels" / "a.whl").unlink()
    with pytest.raises(installer.InstallError, match=r"a\.whl is missing"):
        installer.check_files(about, tmp_path)


def run(command: list[str | Path], folder: Path, environment: dict[str, str] | None = None) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-500:]} {done.stderr[-2000:]}"
    return done.stdout


def torch_alone(folder: Path) -> Path:
    """An environment that has torch and what torch needs, as links to what is installed here."""
    run([sys.executable, "-m", "venv", "--without-pip", folder], folder.parent)
    site = folder / "lib" / f"python{PYTHON}" / "site-packages"
    needed, queue = set[str](), ["torch"]
    queue += [name for found in metadata.distributions() if (name := found.name or "").startswith(("nvidia-", "cuda-"))]
    while queue:
        name = canonicalize_name(queue.pop())
        needs = map(Requirement, metadata.requires(name) or ()) if name not in needed else ()
        needed.add(name)
        queue += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    for name in needed:
        found = metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    return folder / "bin" / "python"


@pytest.mark.slow
def test_a_bundle_installs_and_works_where_there_is_torch_alone_and_no_network(tmp_path: Path) -> None:
    images = tmp_path / "scenes"
    for number in range(4):
        (images / "River").mkdir(parents=True, exist_ok=True)
        (images / "River" / f"{number}.png").write_bytes(bytes(number))
    out = tmp_path / "bundle"
    tool = [sys.executable, ROOT / "tools" / "offline_bundle.py", out, "--limit-mib", "100", "--data", images]
    made = subprocess.run(list(map(str, tool)), cwd=tmp_path, capture_output=True, text=True, check=False)
    if "it reaches no package index" in made.stderr:
        pytest.skip("pip reaches no package index from here, and a bundle is made from one")
    assert f"for Python {PYTHON} and torch" in made.stdout, made.stderr[-2000:]
    brought = (out / "requirements.txt").read_text()
    assert "torch==" not in brought
    assert f"satdifuser=={metadata.version('satdifuser')}" in brought
    assert json.loads((out / "bundle.json").read_text())["data"]["images"] == 4

    empty = tmp_path / "there"
    empty.mkdir()
    kept = ("PATH", "LANG", "TMPDIR")
    offline = {name: os.environ[name] for name in kept if name in os.environ}
    offline |= {"HOME": str(empty), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "OMP_NUM_THREADS": "1"}
    offline["PYTHON"] = str(torch_alone(tmp_path / "base"))
    install: list[str | Path] = ["sh", out / "install.sh", "env"]
    assert run(install, empty, offline).startswith(f"installed in {empty}/env; run: ")
    assert run(install, empty, offline).startswith("is installed already in ")
    assert sorted(path.name for path in (empty / "data" / "scenes" / "River").iterdir()) == [
        f"{n}.png" for n in range(4)
    ]

    satdifuser = empty / "env" / "bin" / "satdifuser"
    modules = [{"scikit-learn": "sklearn"}.get(name, name) for name in OPTIONAL]
    code = (
        "import importlib.util, satdifuser, torch; print(satdifuser.__file__); print(torch.__file__);"
        f"print([name for name in {modules} if importlib.util.find_spec(name)])"
    )
    ours, torchs, there = run([empty / "env" / "bin" / "python", "-c", code], empty, offline).split("\n")[:3]
    assert ours.startswith(str(empty / "env"))
    assert torchs.startswith(str(tmp_path / "base"))
    assert there == "[]"
    run([satdifuser, "extract", *SCENES], empty, offline)
    quick = ["features=features.zarr", "fusion=moe", "task=segmentation", "trainer=quick", "trainer.max_steps=2"]
    run([satdifuser, "train", *quick, "run=trained"], empty, offline)
    run([satdifuser, "eval", "run=trained"], empty, offline)
    run([satdifuser, "pretrain", *SCENES, *RECIPE, "recipe.tensorboard=false", "run=pretrained"], empty, offline)
    assert json.loads((empty / "trained" / "result.json").read_text())["samples"] == 4
    for file in ("features.zarr/zarr.json", "trained/metrics.jsonl", "pretrained/model"):
        assert (empty / file).exists(), file
