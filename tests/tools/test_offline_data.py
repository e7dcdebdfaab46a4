"""Images in parts: each a fair share of every class, none larger than told, any of them a data set."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from satdifuser.data.splits.holdout import held_out
from satdifuser.errors import UserError

PART = 40_000
CLASSES = {"Forest": 90, "River": 60, "SeaLake": 30}


@pytest.fixture
def data(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("offline_data")


def write_images(root: Path, seed: int = 0) -> Path:
    """Random bytes of random length (nothing here looks into an image), in an order of `seed`."""
    names = [f"{kind}/{kind}_{number}.jpg" for kind, count in CLASSES.items() for number in range(count)]
    random.Random(seed).shuffle(names)
    for name in names:
        draw = random.Random(name)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(draw.randbytes(draw.randrange(500, 2500)))
    return root


def unpacked(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:xz") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def test_parts_are_small_enough_share_nothing_and_keep_every_image_as_it_was(data: ModuleType, tmp_path: Path) -> None:
    root = write_images(tmp_path)
    found = list(data.parts(root, data.fair_order(data.images_by_class(root)), room=10**9, part=PART))
    contents = [unpacked(packed) for packed, _ in found]
    assert len(found) > 5
    assert all(len(packed) <= PART for packed, _ in found)
    assert all(len(packed) > 0.9 * PART for packed, _ in found[:-1])
    assert [len(content) for content in contents] == [count for _, count in found]
    together = {name: content for part in contents for name, content in part.items()}
    assert len(together) == sum(map(len, contents)) == sum(CLASSES.values())
    assert all((root / name).read_bytes() == content for name, content in together.items())


def test_every_part_has_each_classs_share(data: ModuleType, tmp_path: Path) -> None:
    root = write_images(tmp_path)
    for packed, count in data.parts(root, data.fair_order(data.images_by_class(root)), room=10**9, part=PART):
        names = list(unpacked(packed))
        for kind, size in CLASSES.items():
            share = sum(name.startswith(f"{kind}/") for name in names)
            assert abs(share - count * size / sum(CLASSES.values())) < 2, kind


def test_parts_do_not_depend_on_the_order_or_times_of_the_files(data: ModuleType, tmp_path: Path) -> None:
    first, second = (write_images(tmp_path / str(seed), seed) for seed in (1, 2))
    order = data.fair_order(data.images_by_class(first))
    assert order == data.fair_order(data.images_by_class(second))
    assert data.pack(first, order[:40]) == data.pack(second, sorted(order[:40]))


def test_a_part_has_its_share_of_the_test_images_of_the_whole(data: ModuleType) -> None:
    names = {kind: [f"{kind}/{number}.jpg" for number in range(1000)] for kind in "ab"}
    order = data.fair_order(names)
    test = set(held_out(names, val=0.1, test=0.1)["test"])
    assert len(test & set(order[:1000])) == pytest.approx(100, abs=25)  # of 200 in 2000


def test_as_many_parts_are_written_as_there_is_room_for(data: ModuleType, tmp_path: Path) -> None:
    root, said = write_images(tmp_path / "scenes"), []
    about = data.write_parts(root, tmp_path / "out", 2 * PART + PART // 2, PART, said.append)
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["part-01.tar.xz", "part-02.tar.xz", "part-03.tar.xz"]
    assert 2.3 * PART < sum(file.stat().st_size for file in files) <= 2.5 * PART
    assert about["parts"] == {file.name: len(unpacked(file.read_bytes())) for file in files}
    assert (about["name"], about["of"]) == ("scenes", 180)
    assert said == [f"{about['images']} of 180 images of {root} fit, in 3 parts"]


def test_images_are_found_as_the_project_finds_them(data: ModuleType, tmp_path: Path) -> None:
    for name in ("a/x.JPG", "a/deep/y.tif", "b/z.png", "b/notes.txt", ".cache/x.png", "b/.hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert data.images_by_class(tmp_path) == {"a": ["a/deep/y.tif", "a/x.JPG"], "b": ["b/z.png"]}


def test_no_folder_no_images_no_room_and_an_image_too_large_are_errors_of_one_line(
    data: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="nowhere is no folder: give the one"):
        data.images_by_class(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no images"):
        data.images_by_class(tmp_path / "empty")
    root = write_images(tmp_path / "scenes")
    with pytest.raises(UserError, match=r"0\.1 MiB are left for images: give a larger --limit-mib"):
        data.write_parts(root, tmp_path / "out", 10**5)
    (root / "River" / "huge.tif").write_bytes(random.Random(0).randbytes(2 * PART))
    with pytest.raises(UserError, match=r"River/huge.tif takes more than the 0.04 MB of a part: leave it out"):
        list(data.parts(root, data.fair_order(data.images_by_class(root)), room=10**9, part=PART))
