"""The pages on a user's own files: labels that cannot be read, dark pictures, what a page calls itself, advice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from satdifuser.cli import main
from satdifuser.config import compose
from satdifuser.data.bands import find_sensor
from satdifuser.data.check.alone import as_far_as_it_goes, images_alone
from satdifuser.data.check.findings import Finding
from satdifuser.data.check.pictures import ALARM, Stretch, pictures, shot

SIDE = 24


@pytest.fixture
def forest(tmp_path: Path) -> Path:
    """Twelve dark images with masks of 1 and 2."""
    random = np.random.default_rng()
    for number in range(12):
        for kind in ("images", "masks"):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(25, 52, (SIDE, SIDE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / "images" / f"a{number}.png")
        mask = np.ones((SIDE, SIDE), np.uint8)
        mask[: number + 2] = 2
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"a{number}.png")
    return tmp_path / "set"


def words(root: Path, classes: str, **more: str) -> list[str]:
    given = {
        "root": str(root),
        "images": "'images/{id}.png'",
        "masks": "'masks/{id}.png'",
        "classes": classes,
        "sensor": "AERIAL_RGB",
        "size": str(SIDE),
        "split_by": "{by: hash, val: 0.25, test: 0.25}",
        **more,
    }
    return ["data=rasters", *(f"data.{name}={value}" for name, value in given.items())]


def test_images_are_seen_where_the_class_list_is_wrong(
    forest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["data", "check", *words(forest, "[other, forest]"), f"output={tmp_path / 'out'}"])
    told = capsys.readouterr().out
    assert code == 1
    assert "a mask with 2, but the class table has 0 to 1" in told
    page = (tmp_path / "out" / "data.html").read_text()
    assert page.count("data:image/png") >= 12  # images and masks
    found = json.loads((tmp_path / "out" / "data.json").read_text())
    files = sorted((forest / "images").iterdir())
    pixels = np.stack([np.asarray(Image.open(file), np.float64) for file in files]) / 255
    for place, band in enumerate(found["bands"]):
        assert band["mean"] == pytest.approx(pixels[..., place].mean(), rel=1e-6)
    assert sum(split["looked at"] for split in found["splits"].values()) == 12
    assert main(["data", "show", *words(forest, "[other, forest]"), f"output={tmp_path / 'shown'}"]) == 1
    assert "a mask with 2" in capsys.readouterr().err


def test_a_mask_with_a_value_outside_the_table_is_shown_with_it(forest: Path) -> None:
    settings: Any = compose("data", words(forest, "[other, forest]")).data
    data = settings.split("train")
    alone = images_alone(data)
    assert alone is not None
    assert "mask" not in alone[0]
    sample: Any = as_far_as_it_goes(data, 0)
    number = int(str(sample["id"])[1:])
    truth = torch.ones(SIDE, SIDE, dtype=torch.int64)
    truth[: number + 2] = -1
    assert torch.equal(sample["mask"], truth)
    assert torch.equal(sample["image"], alone[0]["image"])
    from satdifuser.data.check.gallery import card, gallery

    made = card(sample, "train", data.labels, data.sensor)
    gallery({"": [made]}, {}, data.sensor)
    assert [what for what, _ in made.pictures] == ["image", "mask"]
    assert ((made.pictures[1][1] == ALARM).all(-1) == (truth == -1).numpy()).all()


def test_nothing_that_can_be_read_is_exit_status_1_with_the_errors(
    forest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["data", "show", *words(forest, "{1: forest, 2: field}", size="16"), f"output={tmp_path / 'out'}"])
    assert code == 1
    told = f"is {SIDE} x {SIDE} px, but data.size is 16"
    assert told in capsys.readouterr().err
    assert told in (tmp_path / "out" / "samples.html").read_text()


def test_a_page_is_called_as_the_user_calls_the_set_and_says_how_to_repeat_it(forest: Path, tmp_path: Path) -> None:
    own = tmp_path / "my configs" / "data" / "mine.yaml"
    own.parent.mkdir(parents=True)
    lines = [word.removeprefix("data.").replace("=", ": ", 1) for word in words(forest, "{1: forest, 2: field}")[1:]]
    own.write_text("\n".join(["defaults: [rasters]", *lines]) + "\n")
    given = ["--config-dir", str(own.parent.parent), "--trust", "mine", "data=mine", f"output={tmp_path / 'out'}"]
    assert main(["data", "show", *given]) == 0
    page = (tmp_path / "out" / "samples.html").read_text()
    assert "<h1>Samples of mine</h1>" in page
    command = re.search(r"Made by satdifuser [^<]*<code>([^<]*)", page)
    assert command is not None
    assert f"data show --config-dir &#39;{own.parent.parent}&#39; --trust mine data=mine" in command[1]
    assert main(["data", "check", *words(forest, "{1: forest, 2: field}"), f"output={tmp_path / 'out'}"]) == 0
    assert "<h1>Check of rasters: set</h1>" in (tmp_path / "out" / "data.html").read_text()


def test_dark_pictures_are_stretched_together() -> None:
    sensor, random = find_sensor("AERIAL_RGB"), np.random.default_rng()
    images = [random.uniform(0.1, 0.2, (3, 30, 40)).astype(np.float32) + 0.01 * n for n in range(3)]
    images[0][:, :5] = 0  # no data, which is none of the percentiles
    drawn, told = pictures(images, sensor)
    every = np.concatenate([images[0][:, 5:].reshape(3, -1), *(image.reshape(3, -1) for image in images[1:])], 1)
    low, high = (ends[:, None, None] for ends in np.percentile(every.astype(np.float64), (2, 98), axis=1))
    for image, pixels in zip(images, drawn, strict=True):
        expected = np.sqrt(np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)) * 255
        part = slice(5, None) if image is images[0] else slice(None)
        assert np.abs(pixels[part] - expected.transpose(1, 2, 0)[part]).max() <= 1
    assert told.startswith(f"red from {low[0, 0, 0]:.3g} to {high[0, 0, 0]:.3g}, green from ")
    assert "percentiles 2 to 98 of the pictures together" in told


def test_pictures_of_one_value_or_of_nothing_are_drawn() -> None:
    sensor = find_sensor("AERIAL_RGB")
    assert (
        pictures([np.full((3, 4, 4), 0.5, np.float32)], sensor)[0][0].tolist()
        == [[[round(255 * 0.5**0.5)] * 3] * 4] * 4
    )
    assert Stretch.of([], sensor).spans == ((0.0, 1.0),) * 3
    small = shot(np.arange(48, dtype=np.float32).reshape(3, 4, 4), sensor, 2)
    assert small.layers[0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert not small.gone.any()


def test_radar_keeps_its_range_in_decibels() -> None:
    drawn, told = pictures([np.full((2, 4, 4), -10.0, np.float32)], find_sensor("SENTINEL1"))
    assert drawn[0][0, 0].tolist() == [128, round(255 * 17 / 22), 0]
    assert told.endswith("in dB")


def test_advice_says_which_setting_mends_it(forest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a3", "a7"):
        Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(forest / "images" / f"{name}.png")
    for file in (forest / "masks").iterdir():
        Image.fromarray(np.ones((SIDE, SIDE), np.uint8)).save(file)
    known: Any = compose("data", words(forest, "{1: forest, 2: field}")).data
    train = known.split("train")
    mask = np.full((SIDE, SIDE), 2, np.uint8)
    Image.fromarray(mask).save(forest / "masks" / f"{train.sample_id(0)}.png")
    assert main(["data", "check", *words(forest, "{1: forest, 2: field}"), "format=json"]) == 0
    found = {f["name"]: Finding(**f) for f in json.loads(capsys.readouterr().out)["findings"]}
    exclude = re.search(r"'(data.exclude=\[(.*)\])'", found["blank"].todo)
    assert exclude is not None
    assert sorted(exclude[2].split(", ")) == ["a3", "a7"]
    rest: Any = compose("data", [*words(forest, "{1: forest, 2: field}"), exclude[1]]).data
    ids = {data.sample_id(n) for data in map(rest.split, rest.splits) for n in range(len(data))}
    assert ids == {f"a{n}" for n in range(12)} - {"a3", "a7"}
    assert "give val another share" in found["class-absent"].todo or "give test another" in found["class-absent"].todo
    assert "data.split_by" in found["class-absent"].todo
