"""What is said of settings that cannot be meant: one line, which says what there is and what to set instead."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from satdifuser.data.classes import ClassTable
from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.readers.rasters.reader import Rasters
from satdifuser.errors import UserError

FOLDERS = {"AnnualCrop": 3, "Forest": 4, "Pasture": 1, "River": 2}


def tiff(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    shape: Any = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **shape) as file:
        file.write(pixels)


def picture(path: Path, side: int = 8) -> None:
    tiff(path, np.random.default_rng().integers(1, 9000, (1, side, side)).astype(np.uint16))


@pytest.fixture
def classed(tmp_path: Path) -> Path:
    """A folder for each class."""
    for folder, count in FOLDERS.items():
        for number in range(1, count + 1):
            picture(tmp_path / folder / f"{folder}_{number}.tif")
    return tmp_path


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    """Images of 16 px, without masks yet."""
    for name in "abc":
        picture(tmp_path / "images" / f"{name}.tif", 16)
    (tmp_path / "masks").mkdir()
    return tmp_path


def opened(root: Path, split: str = "all", **words: Any) -> Rasters:
    return Rasters(str(root), split, **{"images": "images/{id}.tif", "sensor": "SENTINEL2:B04", "size": 8, **words})


def refusal(act: Any) -> str:
    with pytest.raises(UserError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# patterns


def test_an_unknown_placeholder_is_an_error_that_names_those_there_are(classed: Path) -> None:
    said = refusal(lambda: opened(classed, images="{clas}/*.tif"))
    assert "data.images is '{clas}/*.tif', and {clas} is no placeholder: there is id, split, class" in said
    assert said.endswith("; did you mean class?")
    assert "{} is no placeholder" in refusal(lambda: opened(classed, images="{}/*.tif"))
    assert "{i-d} is no placeholder" in refusal(lambda: opened(classed, images="Forest/{i-d}.tif"))
    said = refusal(lambda: opened(classed, images="Forest/{id}.tif", masks="Forest/{name}.tif"))
    assert "data.masks is 'Forest/{name}.tif', and {name} is no placeholder" in said


def test_a_pattern_that_matches_no_file_is_told_of_one_that_lies_deeper(classed: Path) -> None:
    said = refusal(lambda: opened(classed, images="{id}.tif"))
    assert "AnnualCrop/AnnualCrop_1.tif is there: try **/{id}.tif or {class}/{id}.tif" in said
    for way in ("**/{id}.tif", "{class}/{id}.tif"):
        assert len(opened(classed, images=way)) == sum(FOLDERS.values())
    said = refusal(lambda: opened(classed, images="{id}.png"))
    assert said.endswith("set the pattern to how the files are called")


@pytest.mark.parametrize(
    ("pattern", "file", "ways"),
    [
        ("images/{id}.tif", "images/train/x/a.tif", "images/**/{id}.tif"),
        ("images/{id}.tif", "images/Training/a.tif", "images/**/{id}.tif or images/{split}/{id}.tif"),
        ("images/{id}.tif", "test/images/a.tif", "**/images/{id}.tif or {split}/images/{id}.tif"),
        ("{split}/images/{id}.tif", "set/train/images/a.tif", "**/{split}/images/{id}.tif or {class}/{split}/images/"),
        ("imgs/{id}.tif", "images/deep/a.tif", "**/{id}.tif"),
        ("imgs/**/{id}.tif", "images/deep/a.tif", "**/{id}.tif"),
        ("{class}/{id}.tif", "set/wood/a.tif", "**/{class}/{id}.tif"),
    ],
)
def test_what_is_proposed_keeps_as_much_of_the_pattern_as_can_be_and_works(
    tmp_path: Path, pattern: str, file: str, ways: str
) -> None:
    picture(tmp_path / file)
    said = refusal(lambda: opened(tmp_path, images=pattern))
    assert f"{file} is there: try {ways}" in said
    for way in said.partition(": try ")[2].split(" or "):
        assert opened(tmp_path, images=way).names == ["a"]


# tables


def test_a_table_of_which_nothing_is_used_is_an_error_that_lists_its_columns(masked: Path) -> None:
    path = masked / "labels.csv"
    path.write_text("image,cover,height,part\na,wood,1.5,train\nb,lake,2,val\nc,wood,3,test\n")
    words: dict[str, Any] = {"size": 16, "table": str(path)}
    by_column = {"by": "column", "column": "part"}
    for own in ({}, {"split_by": {**by_column, "table": str(path)}}, {"split_by": "blocks"}):
        said = refusal(lambda own=own: opened(masked, **words, **own))
        assert "data.table names no label, multilabel or target" in said
        assert said.endswith("its columns are image, cover, height, part")
    assert opened(masked, "val", **words, split_by=by_column).names == ["b"]
    assert opened(masked, **{**words, "table": {"path": str(path), "label": "cover"}}).labels.classes == (
        "lake",
        "wood",
    )


# splits


def test_a_usual_word_that_another_split_claims_is_no_longer_its_own(tmp_path: Path) -> None:
    for folder, names in {"training": "abc", "validation": "de"}.items():
        for name in names:
            picture(tmp_path / folder / f"{name}.tif")
    words: dict[str, Any] = {"images": "{split}/{id}.tif", "split_by": {"by": "folder", "train": "training"}}
    words["split_by"]["test"] = "Validation"
    assert opened(tmp_path, "train", **words).names == ["a", "b", "c"]
    assert opened(tmp_path, "test", **words).names == ["d", "e"]
    said = refusal(lambda: opened(tmp_path, "val", **words))
    assert "val: val, valid, dev; test: Validation" in said
    words["split_by"]["val"] = "validation"
    assert "is a word of several splits" in refusal(lambda: opened(tmp_path, "val", **words))


def test_usual_words_that_a_column_never_has_are_no_fault_where_others_are_named(masked: Path) -> None:
    path = masked / "labels.csv"
    path.write_text("image,part\na,train\nb,hidden\nc,valid\n")
    words: dict[str, Any] = {"size": 16, "table": str(path)}
    found = {
        split: opened(masked, split, **words, split_by={"by": "column", "column": "part", "test": "hidden"}).names
        for split in ("train", "val", "test")
    }
    assert found == {"train": ["a"], "val": ["c"], "test": ["b"]}
    rule = {"by": "column", "column": "part", "test": "hiden"}
    assert "never has 'hiden' (test)" in refusal(lambda: opened(masked, **words, split_by=rule))


# classes


def test_classes_are_the_folders_that_count(classed: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        data = opened(classed, images="{class}/*.tif", classes=["River", "Forest"])
        opened(classed, "train", images="{class}/*.tif", classes=["River", "Forest"])
    assert data.names == [f"Forest/Forest_{n}.tif" for n in (1, 2, 3, 4)] + [f"River/River_{n}.tif" for n in (1, 2)]
    assert data.read_labels(range(6))["label"].tolist() == [1, 1, 1, 1, 0, 0]
    line = "4 of 10 images are of a {class} that data.classes does not name (AnnualCrop, Pasture) and are left out"
    assert [record.message for record in caplog.records].count(line) == 1
    by_folder = opened(classed, images="{class}/*.tif", classes=["Forest"], exclude=["Forest/Forest_2.tif"])
    assert by_folder.names == [f"Forest/Forest_{n}.tif" for n in (1, 3, 4)]
    said = refusal(lambda: opened(classed, images="{class}/*.tif", classes=["Forest", "Rivers"]))
    assert "data.classes has Rivers, which is the {class} of no image: there are AnnualCrop, Forest, Pasture" in said
    assert said.endswith("did you mean River?")


def test_folders_that_are_numbers_may_be_named_and_merged(tmp_path: Path) -> None:
    for folder in ("1", "2", "3", "9"):
        picture(tmp_path / folder / "a.tif")
    data = opened(tmp_path, images="{class}/*.tif", classes={1: "wood", 2: "lake", 3: "wood"})
    assert (data.labels.classes, data.read_labels(range(3))["label"].tolist()) == (("wood", "lake"), [0, 1, 0])
    assert data.names == ["1/a.tif", "2/a.tif", "3/a.tif"]


def test_a_label_that_is_a_name_is_held_against_names(masked: Path) -> None:
    table = ClassTable(["Forest", "River"])
    for value, said in {
        "AnnualCrop": "has a label AnnualCrop, but the classes are Forest, River: set data.classes",
        "Rivers": "but the classes are Forest, River; did you mean River?: set data.classes",
        7: "has a label 7, but there are 0 to 1: set data.classes",
        "7": "has a label 7, but there are 0 to 1: set data.classes",
    }.items():
        with pytest.raises(BadImageError) as caught:
            table.label(value)
        assert said in str(caught.value)
    with pytest.raises(BadImageError, match=r"are c0, .*, c11 and 8 more: set"):
        ClassTable([f"c{n}" for n in range(20)]).label("wood")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("numbers", "the first masks hold 1, 2: set data.classes={1: ..., 2: ...}"),
        ("palette", "the first masks hold 1, 2: set data.classes={1: ..., 2: ...}"),
        ("colours", "hold '#00ff00', '#ff0000': set data.classes={'#00ff00': ..., '#ff0000': ...}"),
        ("amounts", "the first masks hold 256 values, 0 to 255: name them, or, where they are no classes but amounts"),
    ],
)
def test_masks_without_classes_are_looked_into_for_what_to_name(masked: Path, kind: str, words: str) -> None:
    for name in "abc":
        numbers = np.full((16, 16), 1, np.uint8)
        numbers[3:5] = 2 if name == "b" else 1
        if kind == "colours":
            image = Image.fromarray(np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)[numbers])
        else:
            image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16) if kind == "amounts" else numbers)
        if kind == "palette":
            image.putpalette([0, 0, 0, 9, 9, 9, 70, 80, 90])
        image.save(masked / "masks" / f"{name}.png")
    given: dict[str, Any] = {"masks": "masks/{id}.png", "size": 16}
    said = refusal(lambda: opened(masked, **given))
    assert "data.classes is not set, and data.label=mask needs the names of its classes: " in said
    assert words in said
    if kind == "numbers":
        assert "hold 1: set data.classes={1: ...}" in refusal(lambda: opened(masked, **given, ignore=2))
        (masked / "masks" / "b.png").write_bytes(b"broken")
        assert "hold 1: set data.classes={1: ...}" in refusal(lambda: opened(masked, **given))
        tiles = {**given, "tile": 8, "size": 8, "split_by": "hash"}
        assert "hold 1: set" in refusal(lambda: opened(masked, **tiles))


# sizes


def test_larger_images_are_offered_tiles_where_they_can_be_cut(masked: Path) -> None:
    said = refusal(lambda: opened(masked, size=4)[0])
    assert (
        "is 16 x 16 px, but data.size is 4: set data.tile=4, or data.fit=crop, pad or resize, or data.size=16" in said
    )
    assert opened(masked, size=4, tile=4)[0]["image"].shape == (1, 4, 4)
    assert "data.tile" not in refusal(lambda: opened(masked, size=32)[0])
    np.save(masked / "images" / "many.npy", np.ones((3, 1, 16, 16), np.uint16))
    assert "data.tile" not in refusal(lambda: opened(masked, images="images/*.npy", stacked=True, size=4)[0])
