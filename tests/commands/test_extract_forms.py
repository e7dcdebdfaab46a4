"""satdifuser extract: every form holds what NumPy makes of the maps, and a dry run says what each would take."""

from __future__ import annotations

import re
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray

from satdifuser.build import build_encoder
from satdifuser.cli import main
from satdifuser.config import compose
from satdifuser.data.synthetic import SyntheticScenes
from satdifuser.store import FeatureStore
from satdifuser.store.disk import WriteRate

LENGTHS = {"train": 4, "val": 3, "test": 2}
DATA = ["data.size=16", *(f"data.splits.{name}.length={length}" for name, length in LENGTHS.items())]
SHAPES = {"mid_block@21": (192, 2, 2), "up_blocks.1.resnets.1.conv2@21": (96, 4, 4)}
SMALL = ["encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21]"]
VALUES, CHANNELS = 192 * 2 * 2 + 96 * 4 * 4, 192 + 96  # numbers of a sample
SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}

Maps = dict[str, NDArray[Any]]


def images() -> tuple[torch.Tensor, list[str]]:
    samples = [data[i] for s, n in LENGTHS.items() for data in [SyntheticScenes(s, n, size=16)] for i in range(n)]
    return torch.stack([sample["image"] for sample in samples]), [sample["id"] for sample in samples]


@pytest.fixture(scope="module")
def encoder() -> Any:
    return build_encoder(compose("extract", [*DATA, *SMALL]).encoder).eval()


@pytest.fixture(scope="module")
def maps(encoder: Any) -> Maps:
    """The features themselves, computed in one batch."""
    batch, ids = images()
    with torch.inference_mode():
        return {str(tap): values.numpy() for tap, values in encoder(batch, sample_ids=ids).items()}


def extracted(path: Path, *words: str) -> Maps:
    assert main(["extract", *DATA, *SMALL, f"store.path={path}", *words]) == 0
    group: Any = zarr.open_group(path, mode="r")
    return {name: array[...] for name, array in group.arrays()}


def halves(values: NDArray[Any], how: Any) -> NDArray[Any]:
    """Two cells a side, of maps with an even number of pixels."""
    side = values.shape[2] // 2
    cells = [[how(values[:, :, y : y + side, x : x + side]) for x in (0, side)] for y in (0, side)]
    return np.moveaxis(np.array(cells), (0, 1), (2, 3))


POOLED = {
    "maps": lambda v: v,
    "mean": lambda v: v.astype(float).mean((2, 3))[:, :, None, None],
    "max": lambda v: v.max((2, 3))[:, :, None, None],
    "moments": lambda v: np.concatenate([v.astype(float).mean((2, 3)), v.astype(float).std((2, 3))], axis=1)[
        :, :, None, None
    ],
    "grid2": lambda v: halves(v.astype(float), lambda cell: cell.mean((2, 3))),
    "grid1": lambda v: v.astype(float).mean((2, 3))[:, :, None, None],
}


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("keep", POOLED)
@pytest.mark.parametrize("dtype", SIZES)
def test_every_form_holds_the_encoders_maps_pooled_and_rounded(
    tmp_path: Path, maps: Maps, dtype: str, keep: str
) -> None:
    if dtype == "int8" and keep in ("mean", "max", "moments"):
        assert main(["extract", *DATA, f"store.path={tmp_path / 'f'}", f"store.keep={keep}", "store.dtype=int8"]) == 2
        return
    stored = extracted(tmp_path / "f.zarr", f"store.dtype={dtype}", f"store.keep={keep}", "store.batch_size=4")
    for name in SHAPES:
        wanted = POOLED[keep](maps[name])
        assert stored[name].shape == wanted.shape
        if dtype == "int8":
            scale = stored[f"{name}.scale"]
            np.testing.assert_allclose(scale, np.abs(wanted).max((2, 3)) / 127, rtol=1e-3)
            got = stored[name].astype(float) * scale[:, :, None, None]
            assert np.all(np.abs(got - wanted) <= scale[:, :, None, None] * 0.501 + 2e-5)
            assert stored[name].dtype == np.int8
            continue
        bits = stored[name]
        got = (bits.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else bits
        step = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
        assert str(bits.dtype) == {"bfloat16": "uint16"}.get(dtype, dtype)
        np.testing.assert_allclose(got, wanted, rtol=step * 1.001 + 1e-5, atol=2e-5)
        if step:
            assert np.abs(got - wanted).max() > 1e-5  # it was rounded


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize(("dtype", "close"), [("float32", 0.0), ("float16", 0.02), ("bfloat16", 0.2), ("int8", 0.2)])
def test_stored_latents_are_the_prepared_images_and_give_the_features_of_the_images(
    tmp_path: Path, encoder: Any, maps: Maps, dtype: str, close: float
) -> None:
    stored = extracted(tmp_path / "f.zarr", "store.keep=latents", f"store.dtype={dtype}")
    assert {name for name in stored if "latent" in name} == {"latent", *(["latent.scale"] if dtype == "int8" else [])}
    batch, ids = images()
    bands = batch[:, [3, 2, 1]].numpy()  # B04, B03, B02 of the thirteen
    if dtype == "float32":
        np.testing.assert_allclose(stored["latent"], (np.clip(bands / 0.3, 0, 1) - 0.34) / 0.15, atol=1e-5)
    features, seen = FeatureStore(tmp_path / "f.zarr"), 0
    features.require(encoder.latent_spec)
    for split, length in LENGTHS.items():
        read = features.split(split).batch(range(length))
        assert read["id"] == ids[seen : seen + length]
        with torch.inference_mode():
            bank = encoder.from_latents(read["bank"].map("latent"), sample_ids=read["id"])
        for tap, values in bank.items():
            torch.testing.assert_close(
                values, torch.from_numpy(maps[str(tap)][seen : seen + length]), atol=2e-5 + close, rtol=1e-5 + close
            )
        seen += length


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satdifuser.store.disk.sustained_write", lambda folder: WriteRate(2 * 10**9, 2.0, 1e9, 4e8))


def text(count: float) -> str:
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


LATENTS = 3 * 16 * 16 * 4
FORMS = {  # bytes of a sample
    "store.dtype=float32": VALUES * 4,
    "store.dtype=float16": VALUES * 2,
    "store.dtype=bfloat16": VALUES * 2,  # as good as float16, which is the one that is offered
    "store.dtype=int8": VALUES + CHANNELS * 4,
    "store.keep=grid4 store.dtype=float16": CHANNELS * 16 * 2,
    "store.keep=mean store.dtype=float32": CHANNELS * 4,
    "store.keep=latents store.dtype=float32": LATENTS,
}


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("dtype", SIZES)
def test_a_dry_run_says_samples_and_bytes_of_every_cheaper_form_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "features" / "f.zarr"
    words = ["dry_run=true", f"store.path={path}", f"store.dtype={dtype}", "store.batch_size=2"]
    assert main(["extract", *DATA, *SMALL, *words]) == 0
    said = capsys.readouterr().out
    assert "9 samples (train 4, val 3, test 2), 2 taps of small-diffusion" in said
    mine = FORMS[f"store.dtype={dtype}"]
    rows = [re.split(r"\s*[│┃|]\s*", line.strip("│ ")) for line in said.splitlines() if "store." in line]
    found = {row[0].strip(): row[1:] for row in rows}
    cheaper = {form: each for form, each in FORMS.items() if each < mine and form != "store.dtype=bfloat16"}
    assert found.keys() == {f"store.dtype={dtype}", *cheaper}
    for form, (each, all_of_them, fits) in found.items():
        assert (each, all_of_them, fits.strip()) == (text(FORMS[form]), text(9 * FORMS[form]), "yes")
    assert re.search(r"computing: \d+\.\d\d images/s on (cpu|cuda)", said)
    assert "writing: 1.0 GB/s over 2.0 GB, at first 1.0 GB/s and at last 400.0 MB/s: it may become slower" in said
    assert "bound by computing" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("dry", [True, False])
def test_what_does_not_fit_is_refused_with_the_forms_that_would(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, dry: bool
) -> None:
    free = 9 * LATENTS
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - free, free))
    words = [f"store.path={tmp_path / 'f.zarr'}", "store.dtype=float32", f"dry_run={str(dry).lower()}"]
    assert main(["extract", *DATA, *SMALL, *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for form, each in FORMS.items():
        fits = each * 9 <= free and form != "store.dtype=bfloat16"
        assert (f"{form} ({text(9 * each)})" in said) == fits, (form, said)
    assert "fewer taps or timesteps" in said
    assert not (tmp_path / "f.zarr").exists()
    if dry:
        assert list(tmp_path.iterdir()) == []


def test_the_dry_runs_probe_of_the_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 10**8))  # so it writes one block
    assert main(["extract", *DATA, *SMALL, "dry_run=true", f"store.path={tmp_path / 'f.zarr'}"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick_disk")
def test_a_dry_run_leaves_what_was_begun_and_what_is_finished_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "f.zarr"
    extracted(path)
    (tmp_path / "g.zarr.partial").mkdir()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    for name in ("f.zarr", "g.zarr"):
        words = ["dry_run=true", f"store.path={tmp_path / name}", "store.overwrite=true", "encoder.seed=1"]
        assert main(["extract", *DATA, *SMALL, *words]) == 0
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
