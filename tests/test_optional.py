"""A machine that has torch and little else: what runs there, and what is said where a library is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# With what depends on them: a machine without transformers has no peft, one without torchvision no timm.
MISSING = (
    *("torchgeo", "rasterio", "transformers", "peft", "spyndex", "matplotlib", "tensorboard", "timm", "torchvision"),
    *("scikit-learn", "scipy", "pandas", "xarray", "kornia", "segmentation-models-pytorch"),
)
TINY = ["data.size=16", "data.splits.train.length=8", "data.splits.val.length=4", "data.splits.test.length=4"]
QUICK = ["task=segmentation", "fusion.projection_dim=16", "trainer=quick", "trainer.max_steps=2"]
PRETRAINING = ["recipe.steps=2", "recipe.batch_size=4", "recipe.samples=4", "recipe.eval_images=4"]
LATENT = ["encoder=stable_diffusion", "encoder.backbone.weights=random", "encoder.backbone.architecture=tiny"]


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This environment's packages as links, without some: they are not blocked, they are not there."""
    site, farm = Path(sysconfig.get_paths()["purelib"]), tmp_path_factory.mktemp("lean") / "site"
    farm.mkdir()
    gone = {"__pycache__"}
    for name in MISSING:
        for file in metadata.distribution(name).files or ():
            gone.add(file.parts[0])
    for entry in site.iterdir():
        if entry.name not in gone and entry.suffix != ".pth":
            (farm / entry.name).symlink_to(entry)
    return farm


def run(lean: Path, folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, "PYTHONPATH": f"{lean}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-S", "-c", code]  # -S: without this environment's own packages
    return subprocess.run(words, cwd=folder, env=known, capture_output=True, text=True, check=False)


def commands(lean: Path, folder: Path, *lines: list[str]) -> subprocess.CompletedProcess[str]:
    """Run commands one after the other, to the first that fails."""
    code = f"import sys\nfrom satdifuser.cli import main\nfor words in {lines!r}:\n"
    return run(lean, folder, f"{code}    if code := main(words):\n        sys.exit(code)\n")


def test_the_libraries_are_truly_missing(lean: Path, tmp_path: Path) -> None:
    modules = ["sklearn" if name == "scikit-learn" else name.replace("-", "_") for name in MISSING]
    code = f"from importlib.util import find_spec; print([n for n in {modules!r} if find_spec(n) is not None])"
    assert run(lean, tmp_path, code).stdout == "[]\n"


@pytest.mark.slow
def test_features_heads_training_and_pretraining_run_without_the_optional_libraries(lean: Path, tmp_path: Path) -> None:
    lines = [["extract", *TINY, "store.path=f.zarr"]]
    lines += [["train", "features=f.zarr", *TINY, *QUICK, f"fusion={head}", f"run={head}"] for head in ("gw", "moe")]
    lines += [["train", *TINY, *QUICK, "fusion=lw", "decoder=upernet", "run=live"], ["eval", "run=live", "split=val"]]
    lines += [["pretrain", *TINY, *PRETRAINING, "run=mine"]]
    lines += [["extract", *TINY, "encoder=unconditional", "encoder.backbone.weights=mine/model", "store.path=g.zarr"]]
    done = commands(lean, tmp_path, *lines)
    assert done.returncode == 0, done.stderr[-3000:]
    for run_folder in ("gw", "moe", "live"):
        assert json.loads((tmp_path / run_folder / "result.json").read_text())["steps"] == 2
        assert not list((tmp_path / run_folder / "figures").iterdir())
    assert (tmp_path / "mine" / "model" / "unet").is_dir()
    assert "losses.png" not in (tmp_path / "mine" / "model" / "README.md").read_text()
    said = done.stdout + done.stderr
    for line in (
        "matplotlib is not installed: the learned weights are not drawn",
        "matplotlib is not installed: the model card has no figure of its losses",
        "tensorboard is not installed: the log is metrics.jsonl alone, without its curves",
    ):
        assert said.count(line) == 1  # once, although there were several runs
    assert "figures/weights.png" not in said


@pytest.mark.slow
def test_latent_diffusion_with_random_weights_runs_without_transformers(lean: Path, tmp_path: Path) -> None:
    small = ["encoder.image_size=64", "encoder.precision=float32", "store.path=sd.zarr"]
    done = commands(lean, tmp_path, ["extract", *TINY, *LATENT, *small])
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "name", "use"),
    [
        (["train", *TINY, "encoder=small_vit", "data.size=64", "run=r"], "timm", "ViT encoders"),
        (["train", *TINY, "adapter=lora", "encoder.timesteps=[0]", "run=r"], "peft", "LoRA and its kin"),
        (["train", *TINY, "encoder=cnn", "run=r"], "timm", "ViT encoders"),
        (["train", *TINY, "augmentation=segmentation", "run=r"], "kornia", "augmentation"),
        (["train", *TINY, "decoder=unet", "run=r"], "segmentation-models-pytorch", "the decoders fpn, dpt and unet"),
    ],
)
def test_what_needs_a_missing_library_says_which_and_how_to_get_it(
    lean: Path, tmp_path: Path, words: list[str], name: str, use: str
) -> None:
    done = commands(lean, tmp_path, words)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"satdifuser: this needs {name} ({use}")
    assert last.endswith(f"which is not installed: pip install {name}")
    assert not (tmp_path / "r").exists()


def test_an_error_inside_a_library_that_is_installed_is_not_its_absence() -> None:
    from satdifuser.optional import missing

    inside = ModuleNotFoundError("No module named 'matplotlib.no_such_part'", name="matplotlib.no_such_part")
    said = str(missing(inside))
    assert "matplotlib (figures), which is installed but cannot be loaded" in said
    assert "No module named 'matplotlib.no_such_part'" in said
    assert "pip install" not in said
