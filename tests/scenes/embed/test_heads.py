"""A head that was trained on a store reads an embedding raster of the same encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from satdifuser.build import build_encoder
from satdifuser.cli import main
from satdifuser.config import compose
from satdifuser.engine.run import RunFolder
from satdifuser.scenes.embed.answers import EmbeddedAnswers
from satdifuser.scenes.embed.stored import bank_spec_of, reading_of_vectors
from satdifuser.scenes.scene import Found
from satdifuser.scenes.source import open_scene

ENCODER = ("encoder=rcf", "encoder.features=8", "encoder.stride=4", "data.size=32")
FEW = tuple(f"data.splits.{split}.length=16" for split in ("train", "val", "test"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head of segmentation, trained on stored features of the built-in scenes."""
    folder = tmp_path_factory.mktemp("head")
    words = [*ENCODER, *FEW]
    assert main(["extract", *words, f"store.path={folder / 's.zarr'}", "store.dtype=float32"]) == 0
    head = ["fusion=mean", "decoder=single", "task=segmentation", "trainer=quick", "trainer.max_steps=20"]
    assert main(["train", *words, *head, f"features={folder / 's.zarr'}", f"run={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A scene of one window, and its embedding."""
    folder = tmp_path_factory.mktemp("window")
    image = (np.random.default_rng(5).random((13, 32, 32)) * 0.3).astype(np.float32)
    with rasterio.open(
        folder / "scene.tif",
        "w",
        driver="GTiff",
        height=32,
        width=32,
        count=13,
        dtype="float32",
        crs="EPSG:32632",
        transform=rasterio.Affine(10, 0, 399960, 0, -10, 5800020),
    ) as file:
        file.write(image)
    flat = ["window.margin=0", "window.overlap=0"]
    for form in ("e.zarr", "e.tif"):
        assert main(["embed", *ENCODER, f"scene={folder / 'scene.tif'}", f"out={folder / form}", *flat]) == 0
    return folder, image


def model_of(run: Path) -> Any:
    """The trained head with its encoder live."""
    from satdifuser.build import assemble, build_data, build_task
    from satdifuser.engine.checkpoint import load_checkpoint

    settings = compose("train", [*ENCODER, *FEW, "fusion=mean", "decoder=single", "task=segmentation"])
    data = build_data(settings.data, "test")
    encoder = build_encoder(settings.encoder)
    model = assemble(settings, encoder, encoder.spec, build_task(settings.task, data))
    model.load_trained_state(load_checkpoint(RunFolder(run).best)[1])
    return model.eval()


@pytest.mark.parametrize(("form", "digits"), [("e.zarr", 2e-3), ("e.tif", 1e-5)])
def test_a_window_is_answered_as_with_the_encoder_live(run: Path, window: Any, form: str, digits: float) -> None:
    folder, image = window
    found, model = Found("e", str(folder / form)), model_of(run)
    spec = bank_spec_of(found)
    assert spec == RunFolder(run).spec()
    assert spec is not None
    answers = EmbeddedAnswers(model, spec, torch.device("cpu"))
    assert (answers.size, answers.step) == (8, 1)
    scene = open_scene(found, reading_of_vectors(spec))
    vectors = torch.from_numpy(scene.read(slice(0, 8), slice(0, 8)).image)[None]
    with torch.inference_mode():
        live = model({"image": torch.from_numpy(image)[None], "id": ["a"]}, size=(8, 8)).logits
    span = float(live.max() - live.min())
    np.testing.assert_allclose(answers(vectors, ["a"]).numpy(), live.numpy(), atol=digits * span)
    assert span > 0.01


def test_predict_makes_a_map_of_an_embedding(run: Path, window: Any, tmp_path: Path) -> None:
    folder, image = window
    words = [f"run={run}", f"scene={folder / 'e.tif'}", f"out={tmp_path / 'map.tif'}"]
    assert main(["predict", *words, "window.margin=0", "window.overlap=0", "output=logits"]) == 0
    with torch.inference_mode():
        live = model_of(run)({"image": torch.from_numpy(image)[None], "id": ["a"]}, size=(8, 8)).logits[0]
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_allclose(file.read(), live.numpy(), atol=1e-4)
        assert file.transform == rasterio.Affine(40, 0, 399960, 0, -40, 5800020)


def test_a_head_of_other_features_refuses_it(run: Path, window: Any, tmp_path: Path, capsys: Any) -> None:
    folder, _ = window
    other = ["encoder.bias=0.5", "window.margin=0", "window.overlap=0"]
    assert main(["embed", *ENCODER, *other, f"scene={folder / 'scene.tif'}", f"out={tmp_path / 'o.tif'}"]) == 0
    capsys.readouterr()
    assert main(["predict", f"run={run}", f"scene={tmp_path / 'o.tif'}", f"out={tmp_path / 'map.tif'}"]) == 2
    assert "was trained on other features than these" in capsys.readouterr().err
