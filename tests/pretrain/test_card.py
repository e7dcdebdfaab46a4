"""The model card says what the run knows: data, recipe, losses, curves, samples, and its limits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from satdifuser.pretrain.card import write_card

ABOUT: dict[str, Any] = {
    "data": [{"name": "tiles", "split": "train", "root": "/home/me/tiles", "size": 32, "images": 90}] * 2,
    "held_out": [{"name": "tiles", "split": "val", "size": 32, "images": 7}] * 2,
    "steps": 400,
    "parameters": 5_919_603,
    "loss_on_held_out_images": {"val/21": 0.5, "val/801": 0.125, "val-scenes/21": 0.25, "val-scenes/801": 0.0625},
    "minutes": 12.5,
    "seed": 3,
    "mix_share": 0.125,
    "prepare": {"bands": ["B04", "B03"], "low": 0.0, "high": 0.3},
    "schedule": {"prediction_type": "v_prediction"},
    "min_snr": 5.0,
    "vae": {"weights": None},
    "recipe": {"batch_size": 16, "lr": 6e-4, "min_lr": 0.0, "warmup": 20, "ema": 0.999},
    "card": {"title": "Tiles", "licence": "mit", "data": ["Tiles are by Ann."], "limits": ["Nights."]},
    "machine": "2 CPU threads",
}
ROWS = [{"step": step, "loss": 1 / step} for step in range(1, 5)] + [{"step": 4, "val/21": 0.5, "val/801": 0.125}]


@pytest.fixture
def card(tmp_path: Path) -> str:
    grid = tmp_path / "step.png"
    Image.fromarray(np.full((4, 4, 3), 77, np.uint8)).save(grid)
    (tmp_path / "model").mkdir()
    return write_card(tmp_path / "model", ABOUT, ROWS, grid).read_text()


def test_a_card_has_what_was_configured_and_measured(card: str) -> None:
    for words in (
        "license: mit",
        "# Tiles",
        "5.9 M parameters, of pixels",
        "* tiles: split train, size 32, images 90; held out to measure the loss: 7 images",
        "* Tiles are by Ann.",
        "bands B04, B03; reflectance 0.0 to 0.3",
        "400 steps of 16 images, of which 0.125 from the second data set; v_prediction, min-SNR-5",
        "seed 3; 12.5 minutes on 2 CPU threads",
        "* Nights.",
    ):
        assert words in card, words
    assert "/home/me" not in card  # where data lay is nobody's business


def test_a_card_says_what_was_learned_beside_denoising(tmp_path: Path, card: str) -> None:
    assert "Beside denoising" not in card
    assert "It began with" not in card
    (tmp_path / "other").mkdir()
    about = {
        **ABOUT,
        "init": "/home/me/runs/rgb/model",
        "level_power": 2.5,
        "align": {"tap": "mid_block", "weight": 0.7, "views": 0.03},
        "teacher": {"_target_": "satdifuser.baselines.rcf.RandomFeatures", "filters": "patches", "kernel": 6},
    }
    text = write_card(tmp_path / "other", about, ROWS, None).read_text()
    assert "v_prediction of levels drawn as u^2.5, min-SNR-5" in text
    assert "`mid_block` learned to foretell the maps of RandomFeatures (filters patches, kernel 6), weight 0.7." in text
    assert "kept unlike those of other images (VICReg, weight 0.03)." in text
    assert "It began with the weights of a model that was there." in text
    assert "/home/me" not in text


@pytest.mark.parametrize(("config", "said"), [({"patch_size": 4}, "`PatchUNet2DModel."), ({}, "`UNet2DModel.")])
def test_a_card_names_the_class_of_the_network_that_lies_beside_it(
    tmp_path: Path, config: dict[str, int], said: str
) -> None:
    """With `init=` the settings of a new UNet say nothing of the one that was trained."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
    assert (
        f"diffusers with {said}" in write_card(tmp_path, {**ABOUT, "init": "there", "unet": {}}, ROWS, None).read_text()
    )


def test_a_card_says_how_its_input_is_standardised(tmp_path: Path) -> None:
    prepare = {**ABOUT["prepare"], "mean": [0.3, 0.4], "std": 0.2}
    text = write_card(tmp_path, {**ABOUT, "prepare": prepare}, ROWS, None).read_text()
    assert "reflectance 0.0 to 0.3 becomes 0 to 1, of which 0.3, 0.4 is subtracted; then it is divided by 0.2;" in text
    plain = write_card(tmp_path, {**ABOUT, "prepare": {**prepare, "mean": 0.5, "std": 0.5}}, ROWS, None).read_text()
    assert "reflectance 0.0 to 0.3 becomes -1 to 1;" in plain


def test_its_table_has_a_row_for_each_data_set(card: str) -> None:
    rows = [re.findall(r"[^|\s][^|]*[^|\s]", line) for line in card.splitlines() if line.startswith("|")]
    assert rows[0] == ["21", "801"]
    assert rows[2:] == [["first data set", "0.5000", "0.1250"], ["scenes", "0.2500", "0.0625"]]


def test_what_a_card_shows_is_there(card: str, tmp_path: Path) -> None:
    shown = re.findall(r"!\[\w+\]\((.+)\)", card)
    assert shown == ["losses.png", "samples.png"]
    assert np.asarray(Image.open(tmp_path / "model" / "samples.png")).min() == 77
    assert len(np.unique(np.asarray(Image.open(tmp_path / "model" / "losses.png")))) > 10


def test_without_samples_a_card_speaks_of_none(tmp_path: Path) -> None:
    card = write_card(tmp_path, ABOUT, ROWS, None).read_text()
    assert "samples.png" not in card
    assert not (tmp_path / "samples.png").exists()
