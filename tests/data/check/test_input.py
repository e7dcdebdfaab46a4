"""What the chosen encoder gets of the images: clipped, flat, far from its pretraining; against a slow loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from satdifuser.cli import main
from satdifuser.data.inputs import ImageInput, SampleCheck
from satdifuser.data.synthetic import SyntheticScenes

BANDS = ["B04", "B08"]


def needs(side: int = 32, **settings: Any) -> SampleCheck:
    return SampleCheck(ImageInput(BANDS, **settings), (side, side))


def test_shares_means_and_deviations_of_the_input_are_those_of_every_pixel(checked: Any) -> None:
    encoder = needs(low=0.02, high=0.25, mean=[0.3, 0.4], std=[0.2, 0.25])
    rows = checked(encoder=encoder).to_dict()["input"]["train"]
    for place, band in enumerate((3, 7)):
        values, given = [], []
        for index in range(24):
            image: Any = SyntheticScenes("train", 24, size=32)[index]["image"]
            inputs = encoder.prepare(image[None])[0, place].numpy()
            for row in range(32):
                for column in range(32):
                    if any(image[:, row, column].tolist()):
                        values.append(float(image[band, row, column]))
                        given.append(float(inputs[row, column]))
        found = rows[place]
        assert found["clipped low"] == pytest.approx(np.mean([value < np.float32(0.02) for value in values]))
        assert found["clipped high"] == pytest.approx(np.mean([value > np.float32(0.25) for value in values]))
        assert found["mean"] == pytest.approx(np.mean(given), abs=1e-5)
        assert found["std"] == pytest.approx(np.std(given), abs=1e-5)


def test_an_input_that_fits_says_nothing(checked: Any, names: Any) -> None:
    assert names(checked(encoder=needs(low=0.0, high=0.7))) == {}


def test_a_range_that_cuts_is_found_with_its_bands(checked: Any, names: Any) -> None:
    found = names(checked(encoder=needs(high=0.15)))
    assert set(found) == {"input-clipped"}
    assert "B08" in found["input-clipped"].what
    assert "above 0.15" in found["input-clipped"].what
    assert "policy=percentiles" in found["input-clipped"].todo


def test_a_range_in_digital_numbers_hides_everything(checked: Any, names: Any) -> None:
    flat = names(checked(encoder=needs(low=0, high=3000)))
    assert set(flat) == {"input-flat"}
    blind = names(checked(encoder=needs(low=1000, high=3000)))
    assert set(blind) == {"input-blind"}
    assert blind["input-blind"].verdict == "error"
    assert "B04 (100 % below 1000)" in blind["input-blind"].what


def test_an_input_far_from_its_pretraining_is_found(checked: Any, names: Any) -> None:
    found = names(checked(encoder=needs(low=0, high=1, mean=[0.48, 0.45], std=[0.05, 0.05])))
    assert set(found) == {"input-off"}
    assert "far from the 0 ± 1" in found["input-off"].what


def test_what_the_encoder_cannot_take_is_an_error(checked: Any, names: Any) -> None:
    found = names(checked(encoder=needs(side=64, high=0.7)))
    assert set(found) == {"unfit"}
    assert "is 32 x 32 px, but the network was built for 64 x 64" in found["unfit"].what
    assert "72 samples" in found["unfit"].what


def test_weights_that_were_trained_on_another_range_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare = {"bands": ["B04", "B03", "B02"], "high": 0.25, "mean": 0.34, "std": 0.15}
    (tmp_path / "provenance.json").write_text(json.dumps({"prepare": prepare}))
    scenes = ["data.size=32", *(f"data.splits.{split}.length=9" for split in ("train", "val", "test"))]
    words = ["data", "check", *scenes, "encoder=small", f"encoder.backbone.weights={tmp_path}"]
    main(words)
    out = capsys.readouterr().out
    assert f"{tmp_path} was trained on inputs of another range; give it encoder.prepare.high=0.25" in out
    main([*words, "encoder.prepare.high=0.25"])
    assert "another range" not in capsys.readouterr().out
