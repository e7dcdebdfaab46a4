"""What lies below a folder under any name: found, or named in one line; nothing is left out without a word."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from PIL import Image

from satdifuser.cli import main
from satdifuser.data.bands import SENTINEL2_RGB
from satdifuser.data.batches import OrderedBatches, faults
from satdifuser.data.files.names import name_fault, shown
from satdifuser.data.files.tree import by_class
from satdifuser.data.readers.folder import ImageFolder
from satdifuser.data.splits.holdout import held_out
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore

ROOTS = ["plain", "blank in it", "ü中é", "a(b", "a=b", "x^2", "it's", 'say "so"', "#1", "[b]", "${x}", "%s", "~", "a!b"]
ROOTS += [
    "a?b&c",
    "zip+x",
    "vsi:mem",
    "line\nfeed",
    "tab\there",
    "-dash",
    "a,b",
    "a\\b",
    "*",
    "file:x",
    "GTIFF_DIR:1:x",
]
BYTES = os.fsdecode(b"caf\xe9.png")


def picture(path: Path, side: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng().integers(0, 256, (side, side, 3), dtype=np.uint8)
    if path.suffix == ".tif":
        with rasterio.open(path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8") as file:
            file.write(pixels.transpose(2, 0, 1))
    else:
        Image.fromarray(pixels).save(path)
    return path


def opened(root: Path | str, split: str = "all", **options: Any) -> ImageFolder:
    return ImageFolder(str(root), split, sensor=SENTINEL2_RGB, **{"size": 8, **options})


def refused(root: Path | str, *words: str, **options: Any) -> None:
    with pytest.raises(UserError) as caught:
        opened(root, **options)
    line = str(caught.value)
    line.encode()  # valid text
    assert line.isprintable(), line
    for word in words:
        assert word in line, line


# names


@pytest.mark.parametrize("name", ROOTS)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_any_name_of_a_root_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for kind in ("png", "jpg", "tif"):
        picture(tmp_path / name / "forest" / f"1.{kind}")
    absolute = opened(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    relative = opened(f"./{name}")
    for data in (absolute, relative):
        assert [sample["id"] for sample in data] == [f"forest/1.{kind}" for kind in ("jpg", "png", "tif")]
    assert absolute.identity == relative.identity


@pytest.mark.parametrize("name", [name for name in ROOTS if name_fault(name) is None])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_any_name_of_a_file_or_class_that_prints_works(tmp_path: Path, name: str) -> None:
    for kind in ("png", "tif"):
        picture(tmp_path / name / f"{name}.{kind}")
    data = opened(tmp_path)
    assert data.labels.classes == (name,)
    assert [sample["id"] for sample in data] == [f"{name}/{name}.{kind}" for kind in ("png", "tif")]
    assert all(sample["label"] == 0 for sample in data)


def test_a_root_below_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "images" / "1.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(opened("~/images")) == 1
    refused("~no_such_user_here/images", "data.root", "~no_such_user_here", "no folder")


def test_a_root_that_cannot_be_is_named_in_a_line(tmp_path: Path) -> None:
    refused("", "data.root is '': it must be a path")
    refused(tmp_path / "two\nlines", "two\\nlines is no folder")
    refused(tmp_path / ("x" * 300), "is no folder")
    refused(f"{tmp_path}/nul\0byte", "nul\\x00byte is no folder")
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "loop", "loop is no folder")
    picture(tmp_path / os.fsdecode(b"\xff") / "1.png")
    refused(tmp_path / os.fsdecode(b"\xff"), "\\xff", "not UTF-8")


ODD = {BYTES: ("caf\\xe9.png", "not UTF-8"), "a\nb.png": ("a\\nb.png", "control")}
ODD |= {"bell\a.png": ("bell\\x07.png", "control"), "esc\x1b[31m.png": ("esc\\x1b[31m.png", "control")}
ODD |= {"part\u2028.png": ("part\\u2028.png", "control"), "\x9b.png": ("\\x9b.png", "control")}


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_can_be_no_id_is_shown_with_escapes_and_can_be_skipped(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "a" / name)
    picture(tmp_path / "a" / "good.png")
    data = opened(tmp_path)
    wanted, reason = ODD[name]
    odd = data.names.index(f"a/{name}")
    assert data.sample_id(odd) == f"a/{wanted}"
    ((number, line),) = [fault for batch in faults(data, OrderedBatches(2, 1)) for fault in batch]
    assert number == odd
    assert line.isprintable()
    assert f"{tmp_path}/a/{wanted} " in line
    assert reason in line
    assert "on_error=skip" in line
    assert data.read_labels([0, 1])["id"] == [data.sample_id(0), data.sample_id(1)]
    json.dumps(data.identity, ensure_ascii=False).encode()


def test_every_name_has_a_split_and_those_that_print_have_the_one_they_had() -> None:
    names = [f"a/{number}.png" for number in range(50)]
    with_odd = held_out({"a": [*names, *(f"a/{name}" for name in ODD)]}, 0.2, 0.2)
    assert {name for split in ("train", "val", "test") for name in with_odd[split]} == {
        *names,
        *(f"a/{n}" for n in ODD),
    }
    assert held_out({"a": ["a/é.png", "a/1.png"]}, 0.5, 0.0)["val"] == ["a/é.png"]


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "two\nlines"])
def test_a_class_whose_name_can_be_no_label_is_refused_unless_it_is_left_out(tmp_path: Path, name: str) -> None:
    picture(tmp_path / name / "1.png")
    picture(tmp_path / "forest" / "1.png")
    refused(tmp_path, str(tmp_path), "class folder", shown(name), "rename")
    assert opened(tmp_path, classes=["forest"]).labels.classes == ("forest",)
    refused(tmp_path, "no folder ice", shown(name), classes=["ice"])


# links, folders and what else has the name of an image


def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "good.png")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "unmounted" / "1.png")
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    data = opened(tmp_path)
    assert data.names == ["a/gone.png", "a/good.png", "a/loop.png"]
    found = dict(fault for batch in faults(data, OrderedBatches(3, 3)) for fault in batch)
    assert sorted(found) == [0, 2]
    assert "gone.png cannot be read as an image" in found[0]
    assert "No such file" in found[0]
    assert "loop.png cannot be read as an image" in found[2]
    before = data.identity
    assert before == opened(tmp_path).identity
    (tmp_path / "a" / "gone.png").unlink()
    picture(tmp_path / "a" / "gone.png")
    assert opened(tmp_path).identity != before


def test_links_to_images_and_to_folders_of_images_are_followed(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "one.png")
    picture(tmp_path / "elsewhere" / "more" / "deep" / "two.png")
    picture(tmp_path / "root" / "a" / "here.png")
    (tmp_path / "root" / "a" / "linked.png").symlink_to(tmp_path / "elsewhere" / "one.png")
    (tmp_path / "root" / "a" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere")
    data = opened(tmp_path / "root")
    assert data.names == [
        "a/here.png", "a/linked.png", "a/more/deep/two.png", "b/more/deep/two.png", "b/one.png"
    ]  # fmt: skip
    assert len(list(data)) == 5


def test_a_link_to_a_folder_above_it_ends(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "b" / "1.png")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "root").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(".")
    picture(tmp_path / "c" / "2.png")
    assert opened(tmp_path, classes=["c"]).names == ["c/2.png"]
    assert [name for name in opened(tmp_path, classes=["a"]).names if "up" not in name and "root" not in name] == [
        "a/b/1.png"
    ]


def test_what_is_no_file_is_no_image(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "a" / "folder.png" / "2.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")  # reading it would wait for ever
    (tmp_path / "a" / "link.png").symlink_to("pipe.png")
    assert opened(tmp_path).names == ["a/1.png", "a/folder.png/2.png"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "a" / "shut" / "2.png")
    scandir = os.scandir

    def guarded(path: Any) -> Any:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)  # these tests may run as root, who may read everything
    refused(tmp_path, str(tmp_path / "a" / "shut"), "cannot be listed", "Permission denied")


def test_a_file_that_may_not_be_read_is_named_and_can_be_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.png", "shut.png"):
        picture(tmp_path / name)
    whole, real = opened(tmp_path).identity, Path.open

    def guarded(path: Path, *words: Any, **options: Any) -> Any:
        if path.name == "shut.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *words, **options)

    def guarded_open(path: Any, *words: Any, **options: Any) -> Any:
        return guarded(Path(path)) if str(path).endswith("shut.png") else opener(path, *words, **options)

    opener = Image.open
    monkeypatch.setattr(Path, "open", guarded)
    monkeypatch.setattr(Image, "open", guarded_open)
    data = opened(tmp_path)
    ((number, line),) = next(iter(faults(data, OrderedBatches(2, 2))))
    assert number == 1
    assert "shut.png cannot be read as an image" in line
    assert "Permission denied" in line
    assert data.identity != whole


def test_a_class_folder_without_images_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "forest" / "1.png")
    (tmp_path / "water").mkdir()
    (tmp_path / "water" / "1.jp2").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        for split in ("all", "train"):
            assert opened(tmp_path, split, val=0, test=0).labels.classes == ("forest",)
    assert [record.getMessage() for record in caplog.records] == [
        f"data.root {tmp_path} has no images in water (.jpg, .jpeg, .png, .tif, .tiff), which is no class then"
    ]


def test_the_images_of_a_tree_are_those_that_a_plain_walk_finds(tmp_path: Path) -> None:
    dice = np.random.default_rng(5)
    for number in range(300):
        depth = dice.integers(0, 4)
        folder = tmp_path / f"c{dice.integers(3)}" / "/".join(f"d{dice.integers(3)}" for _ in range(depth))
        folder.mkdir(parents=True, exist_ok=True)
        suffix = dice.choice([".png", ".JPG", ".tiff", ".txt", ".png.aux.xml", ""])
        (folder / f"{dice.choice(['', '.'])}{number}{suffix}").write_bytes(b"")
    wanted: dict[str, list[str]] = {}
    for path in sorted(tmp_path.rglob("*"), key=lambda path: path.relative_to(tmp_path).as_posix()):
        name = path.relative_to(tmp_path).as_posix()
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() in (".png", ".jpg", ".tiff"):
            wanted.setdefault(name.partition("/")[0], []).append(name)
    assert by_class(tmp_path, None) == dict(sorted(wanted.items()))


# from the command line


SMALL = ["encoder.taps=[mid_block]", "encoder.timesteps=[21]", "data.size=64", "data.val=0", "data.test=0"]


def test_a_name_that_is_not_utf8_stops_an_extraction_or_is_skipped_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("forest/1.png", "water/1.png", f"water/{BYTES}"):
        picture(tmp_path / "tree" / name, 64)
    words = [
        "extract",
        "data=image_folder",
        f"data.root={tmp_path / 'tree'}",
        *SMALL,
        f"store.path={tmp_path / 'f.zarr'}",
    ]
    words.append("store.splits=[train]")
    assert main(words) == 2
    line = capsys.readouterr().err.strip()
    assert line.isprintable()
    assert "water/caf\\xe9.png has a name that is not UTF-8" in line
    assert main([*words, "on_error=skip", "store.overwrite=true"]) == 0
    skipped: Any = zarr.open_group(tmp_path / "f.zarr", mode="r").attrs["skipped"]
    assert [sample["id"] for sample in skipped] == ["water/caf\\xe9.png"]
    assert FeatureStore(tmp_path / "f.zarr").split("train").batch(range(2))["id"] == ["forest/1.png", "water/1.png"]
