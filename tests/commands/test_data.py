"""`satdifuser data check | stats | show`, and the look before a long extraction."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from satdifuser.cli import main
from satdifuser.commands import extract
from satdifuser.config import compose
from satdifuser.data.synthetic import SyntheticScenes
from satdifuser.errors import UserError

SCENES = ["data.size=32", "data.splits.train.length=12", "data.splits.val.length=9", "data.splits.test.length=9"]
REAL = os.environ.get("SATDIFUSER_TEST_DATA")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*words: str) -> tuple[int, str, str]:
        code = main(["data", *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of the scenes, a folder for each of two classes; the same ones in other classes are no copies."""
    for index in range(30):
        image: Any = SyntheticScenes("train", 30, size=32)[index]["image"]
        pixels = (image[[3, 2, 1]] / 0.275).clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
        name = tmp_path / "pictures" / ("field", "wood")[index % 2] / f"{index}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(name)
    return tmp_path / "pictures"


def of(folder: Path) -> list[str]:
    return ["data=image_folder", f"data.root={folder}", "data.size=32", "data.val=0.3", "data.test=0.3"]


def test_a_clean_data_set_says_that_nothing_looks_wrong(run: Any, folder: Path) -> None:
    code, out, _ = run("check", *SCENES, "encoder=small")
    assert code == 0
    assert out.splitlines()[0] == "Sentinel-2 MSI (train 12, val 9, test 9): nothing looks wrong"
    assert all(line.startswith("fine ") for line in out.splitlines()[1:])
    code, out, _ = run("check", *of(folder))
    assert code == 0
    assert "Sentinel-2 RGB" in out.splitlines()[0]
    assert "nothing looks wrong" in out.splitlines()[0]


def test_an_error_is_exit_status_1_and_stands_first(run: Any, folder: Path) -> None:
    (folder / "wood" / "1.png").write_bytes(b"no picture")
    code, out, _ = run("check", *of(folder))
    assert code == 1
    lines = out.splitlines()
    assert "1 error" in lines[0]
    assert lines[1].startswith("error ")
    assert "wood/1.png" in lines[1]


def test_a_leak_between_splits_is_found_in_files(run: Any, folder: Path) -> None:
    before = json.loads(run("check", *of(folder), "format=json")[1])
    assert before["verdict"] == "fine"
    ids = {split: next(iter(_ids(folder, split))) for split in ("train", "test")}
    (folder / ids["test"]).write_bytes((folder / ids["train"]).read_bytes())
    code, out, _ = run("check", *of(folder), "format=json")
    found = json.loads(out)
    assert code == 1
    across = [f for f in found["findings"] if f["name"] == "repeat-across"]
    assert [f["samples"] for f in across] == [[ids["test"]]]


def _ids(folder: Path, split: str) -> list[str]:
    data: Any = compose("data", of(folder)).data.split(split)
    return [data.sample_id(index) for index in range(len(data))]


def test_json_and_csv_say_what_the_lines_say(run: Any) -> None:
    words = [*SCENES, "encoder=small", "encoder.prepare.high=0.05"]
    code, out, _ = run("check", *words, "format=json")
    found = json.loads(out)
    assert code == 0
    assert found["verdict"] == "warning"
    assert found["splits"]["val"] == {"samples": 9, "looked at": 9}
    assert sum(found["classes"]["train"].values()) > 0
    assert len(found["bands"]) == 13
    assert [row["band"] for row in found["input"]["train"]] == ["B04", "B03", "B02"]
    _, out, _ = run("check", *words, "format=csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["name"] for row in rows] == [f["name"] for f in found["findings"]]


def test_the_page_has_pictures_and_loads_nothing(run: Any, tmp_path: Path) -> None:
    code, _, err = run("check", *SCENES, "encoder=small", "encoder.prepare.high=0.05", f"output={tmp_path / 'out'}")
    assert code == 0
    assert "data.html, data.json" in err
    page = (tmp_path / "out" / "data.html").read_text(encoding="ascii")
    assert json.loads((tmp_path / "out" / "data.json").read_text())["verdict"] == "warning"
    assert page.count("data:image/png") > 20
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "the encoder&#39;s range cuts" in page
    for word in ("<h2>Classes</h2>", "<h2>Bands</h2>", "<h2>What the encoder gets, train</h2>", "wetland", "<svg"):
        assert word in page


def test_stats_are_those_of_all_training_pixels(run: Any, tmp_path: Path) -> None:
    values = []
    for index in range(12):
        image: Any = SyntheticScenes("train", 12, size=32)[index]["image"]
        pixels = image.double().numpy().reshape(13, -1)
        values.append(pixels[:, (pixels != 0).any(0)])
    every = np.concatenate(values, 1)
    code, out, _ = run("stats", *SCENES, "format=csv", f"output={tmp_path}")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (tmp_path / "bands.csv").read_text() == out
    assert len(rows) == 13
    for row, band in zip(rows, every, strict=True):
        assert (row["split"], row["samples"]) == ("train", "12")
        assert float(row["mean"]) == pytest.approx(band.mean(), rel=1e-9)
        assert float(row["std"]) == pytest.approx(band.std(), rel=1e-9)
        assert float(row["p95"]) == pytest.approx(np.percentile(band, 95), rel=6e-4, abs=1e-4)
    known = json.loads((tmp_path / "bands.json").read_text())
    assert [row["band"] for row in known["bands"]] == [row["band"] for row in rows]
    _, text, _ = run("stats", *SCENES, "splits=[val,test]")
    assert "val: 9 of 9 samples" in text
    assert "percentiles to 0.05% of their size" in text


def test_show_writes_a_page_and_a_contact_sheet(run: Any, tmp_path: Path, folder: Path) -> None:
    code, _, err = run("show", *SCENES, "shown=2", f"output={tmp_path / 'a'}")
    assert code == 0
    assert "samples.html, samples.png" in err
    sheet = np.asarray(Image.open(tmp_path / "a" / "samples.png"))
    assert sheet.shape[0] == 8 * 100  # a row for each class
    page = (tmp_path / "a" / "samples.html").read_text()
    assert page.count('alt="mask of scene-0-') > 16
    run("show", *of(folder), f"output={tmp_path / 'b'}", "splits=[train]")
    page = (tmp_path / "b" / "samples.html").read_text()
    assert page.count("<h3>") == 2
    assert page.count("data:image/png") == 6


def test_what_follows_data_is_one_of_its_words(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("chek")
    assert code == 2
    assert "satdifuser data is followed by check, stats, show" in err
    assert "did you mean check?" in err
    assert run("check", "splits=[train,tset]")[0] == 2
    code, out, _ = run("check", "--help")
    assert code == 0
    assert "samples=2000" in out
    assert run("stats", "--help", "data=synthetic")[0] == 0


def test_a_split_that_cannot_be_had_is_an_error_of_the_others_check(run: Any, folder: Path) -> None:
    code, out, _ = run("check", *of(folder), "data.splits.test.split=tset")
    assert code == 1
    assert out.splitlines()[1].startswith("error    test: ")
    assert "train" in out.splitlines()[0]


def long(path: Path, *words: str) -> Any:
    scenes = ["data.size=16", "data.splits.train.length=500", "data.splits.val.length=1", "data.splits.test.length=1"]
    return compose("extract", ["encoder=colours", *scenes, f"store.path={path}", *words])


def test_before_a_long_extraction_some_samples_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = "encoder.prepare.high=0.1"
    extract.run(long(tmp_path / "a.zarr", narrow))
    told = " ".join(capsys.readouterr().err.split())
    assert "warning images: the encoder's range cuts" in told
    extract.run(long(tmp_path / "b.zarr", narrow, "check_data=false"))
    assert "warning" not in capsys.readouterr().err
    extract.run(compose("extract", ["encoder=colours", *SCENES, f"store.path={tmp_path / 'c.zarr'}", narrow]))
    assert "warning" not in capsys.readouterr().err

    blind = "encoder.prepare.low=5"
    with pytest.raises(UserError, match=r"the encoder sees nothing of .*check_data=false goes on"):
        extract.run(long(tmp_path / "d.zarr", blind, "encoder.prepare.high=6"))
    assert not (tmp_path / "d.zarr").exists()


def test_an_extraction_that_goes_on_is_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from satdifuser.commands import data
    from satdifuser.store.place import place_of

    looks: list[int] = []
    monkeypatch.setattr(data, "look_first", lambda *given: looks.append(1))
    settings = long(tmp_path / "a.zarr")

    def interrupt(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("satdifuser.engine.features.features", interrupt)
    with pytest.raises(KeyboardInterrupt):
        extract.run(settings)
    assert place_of(str(tmp_path / "a.zarr")).partial.exists()
    assert looks == [1]
    monkeypatch.undo()
    monkeypatch.setattr(data, "look_first", lambda *given: looks.append(2))
    extract.run(settings)
    assert looks == [1]


@pytest.mark.skipif(REAL is None, reason="SATDIFUSER_TEST_DATA names no folder of real images")
def test_the_wrong_order_of_eurosats_bands_is_seen_and_the_right_one_is_fine(run: Any) -> None:
    words = ["data=image_folder", f"data.root={REAL}/real/eurosat-ms", "format=json"]
    code, out, _ = run("check", *words, "data.sensor=SENTINEL2_B8A_LAST")
    assert code == 0
    assert json.loads(out)["verdict"] == "fine"
    _, out, _ = run("check", *words, "data.sensor=SENTINEL2")
    found = {f["name"]: f["what"] for f in json.loads(out)["findings"] if f["verdict"] == "warning"}
    assert set(found) == {"order-cirrus", "order-neighbours"}
    assert "B09 (0.0012) looks like it" in found["order-cirrus"]
