"""What all readers share: grids, sizes, no data, dates and answers, on a reader of random arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.readers.base import Raw, Reader
from satdifuser.errors import UserError
from satdifuser.kinds import Above, checked, hints_of, parameters_of


class Arrays(Reader):
    name = "arrays"

    @checked("data")
    def __init__(self, raws: Mapping[str, Any], split: str = "train", *, own: int = 3, **above: Above) -> None:
        self.raws, self.own = raws, own
        super().__init__(list(raws), **above)

    def read(self, name: str) -> Raw:
        if isinstance(self.raws[name], Exception):
            raise self.raws[name]
        return self.raws[name]

    @property
    def about(self) -> dict[str, Any]:
        return {"own": self.own}


RGB = "SENTINEL2:B04/B03/B02"


def one(raw: Any, **settings: Any) -> Any:
    usual = {"sensor": RGB, "size": 8, "scaling": "as_is"}
    return Arrays({"a": raw}, **{**usual, **settings})[0]


def draw(*shape: int) -> Any:
    return np.random.default_rng().random(shape).astype(np.float32)


def test_a_class_takes_by_name_what_the_class_above_takes() -> None:
    assert {"own", "raws", "split", "sensor", "size", "fit", "limit"} <= hints_of(Arrays).keys()
    assert not {"names", "above", "self"} & hints_of(Arrays).keys()
    assert parameters_of(Arrays)["fit"].default == "none"
    with pytest.raises(UserError, match=r"data\.fit is 'corp'"):
        one(Raw(draw(3, 8, 8)), fit="corp")
    with pytest.raises(TypeError, match="unknown"):
        one(Raw(draw(3, 8, 8)), unknown=1)


def test_an_image_is_as_it_was_and_no_data_is_zero() -> None:
    numbers = draw(3, 8, 8)
    blank = np.random.default_rng().random((8, 8)) > 0.7
    numbers[1, 2, 3], numbers[0, 4, 4] = 9999, np.nan
    found = one(Raw(numbers, blank=[blank, None, blank]), nodata=[9999], nan="nodata")["image"].numpy()
    wanted = numbers.copy()
    wanted[0][blank] = wanted[2][blank] = wanted[1, 2, 3] = wanted[0, 4, 4] = 0
    np.testing.assert_array_equal(found, wanted)


def test_coarse_bands_are_brought_to_the_finest_grid_and_stay_blank_where_they_were() -> None:
    fine, coarse, gone = draw(8, 8), draw(4, 4) + 1, np.zeros((4, 4), bool)
    gone[3, 3] = True
    found = one(Raw([fine, coarse, fine], blank=[None, gone, None]))["image"]
    np.testing.assert_array_equal(found[0], fine)
    source = torch.from_numpy(np.where(gone, 0, coarse).astype(np.float64))
    for row in range(8):
        for column in range(8):
            y, x = (row + 0.5) / 2 - 0.5, (column + 0.5) / 2 - 0.5
            top, left = max(0, int(np.floor(y))), max(0, int(np.floor(x)))
            bottom, right = min(3, int(np.floor(y)) + 1), min(3, int(np.floor(x)) + 1)
            v, u = y - np.floor(y), x - np.floor(x)
            value = (1 - v) * ((1 - u) * source[top, left] + u * source[top, right])
            value += v * ((1 - u) * source[bottom, left] + u * source[bottom, right])
            touched = any(gone[r, c] for r in (top, bottom) for c in (left, right))
            assert float(found[1, row, column]) == pytest.approx(0.0 if touched else float(value), abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(5, 6), (11, 9), (5, 12), (8, 8)])
def test_pad_keeps_the_middle_and_adds_no_data_and_nothing_to_learn(height: int, width: int) -> None:
    numbers, mask = draw(3, height, width) + 1, np.random.default_rng().integers(0, 2, (height, width))
    sample = one(Raw(numbers, mask), fit="pad", label="mask", classes=["a", "b"])
    assert sample["image"].shape == (3, 8, 8)
    top, left = max(0, (height - 8) // 2), max(0, (width - 8) // 2)
    high, wide = min(8, height), min(8, width)
    np.testing.assert_array_equal(sample["image"][:, :high, :wide], numbers[:, top : top + high, left : left + wide])
    np.testing.assert_array_equal(sample["mask"][:high, :wide], mask[top : top + high, left : left + wide])
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[:high, :wide] = False
    assert (sample["image"][:, outside] == 0).all()
    assert (sample["mask"][outside] == 255).all()


def test_dates_are_chosen_evenly_and_what_is_not_there_is_blank() -> None:
    reader = Arrays({}, sensor=RGB, size=8, dates=4)
    assert reader.pick(4) == [0, 1, 2, 3]
    assert reader.pick(3) == [0, 1, 2]
    assert reader.pick(12) == [1, 4, 7, 10]
    assert Arrays({}, sensor=RGB, size=8).pick(5) == [0, 1, 2, 3, 4]
    for count in range(1, 40):
        picked = reader.pick(count)
        assert len(set(picked)) == min(4, count)
        assert picked == sorted(picked)
    numbers = draw(3, 2, 8, 8) + 1
    sample = one(Raw(numbers, dates=[18000, 18100]), dates=4)
    assert sample["image"].shape == (4, 3, 8, 8)
    np.testing.assert_array_equal(sample["image"][:2], numbers.transpose(1, 0, 2, 3))
    assert not sample["image"][2:].any()
    assert sample["dates"].tolist() == [18000, 18100, -1, -1]


def test_masks_of_another_grid_than_their_image_are_one_line() -> None:
    with pytest.raises(UserError, match="is 8 x 8 px, but its mask is 9 x 8"):
        one(Raw(draw(3, 8, 8), np.zeros((9, 8))), label="mask", classes=["a", "b"])
    coarse = np.random.default_rng().integers(0, 2, (4, 4))
    sample = one(Raw(draw(3, 16, 16), coarse), label="mask", classes=["a", "b"], fit="resize")
    np.testing.assert_array_equal(sample["mask"], coarse.repeat(2, 0).repeat(2, 1))


def test_answers_of_every_kind() -> None:
    image = draw(3, 8, 8)
    names = ["a", "b", "c"]
    assert one(Raw(image, "b"), label="label", classes=names)["label"] == 1
    for given in ([0, 2], ["a", "c"], [1, 0, 1]):
        found = one(Raw(image, given), label="multilabel", classes=names)["multilabel"]
        assert found.tolist() == [1, 0, 1]
        assert found.dtype == torch.float32
    assert one(Raw(image, 3), label="target")["target"].tolist() == 3
    numbers = draw(8, 8)
    numbers[0, 0] = np.nan
    np.testing.assert_array_equal(one(Raw(image, numbers), label="target")["target"], numbers)
    for bad, label in (
        (3, "label"),
        ("d", "multilabel"),
        (float("nan"), "target"),
        (None, "label"),
        ([3], "multilabel"),
    ):
        with pytest.raises(UserError, match="sample a has"):
            one(Raw(image, bad), label=label, classes=names)
    with pytest.raises(UserError, match=r"data\.classes is not set"):
        one(Raw(image, 1), label="label")


def test_labels_are_read_as_they_are_with_images() -> None:
    raws = {str(n): Raw(draw(3, 8, 8), np.random.default_rng().integers(0, 3, (8, 8))) for n in range(4)}
    data = Arrays(raws, sensor=RGB, size=8, label="mask", classes=["a", "b", "c"])
    batch = data.read_labels([3, 0])
    assert batch["id"] == ["3", "0"]
    assert torch.equal(batch["mask"], torch.stack([data[3]["mask"], data[0]["mask"]]))
    assert data.read_labels([1], names=["label"]).keys() == {"id"}


def test_whatever_changes_what_is_read_changes_the_identity() -> None:
    usual = {"sensor": RGB, "size": 8, "label": "mask", "classes": ["a", "b"]}
    others: list[dict[str, Any]] = [
        {"own": 4},
        {"sensor": "SENTINEL2:B02/B03/B04"},
        {"size": 9},
        {"fit": "crop"},
        {"classes": ["b", "a"]},
        {"ignore": 2},
        {"scaling": "as_is"},
        {"scaling": {"numbers": "auto", "unit": 5000}},
        {"nodata": [0]},
        {"nan": "nodata"},
        {"dates": 3},
        {"label": None, "classes": None},
    ]
    found = [Arrays({"a": Raw(draw(3, 8, 8))}, **{**usual, **other}).identity for other in [{}, *others]]
    assert len({str(identity) for identity in found}) == len(found)
    assert Arrays({"a": Raw(draw(3, 8, 8))}, **usual).identity == found[0]


@pytest.mark.parametrize("error", [BadImageError("is odd"), ValueError("cannot\ndo"), OSError("gone"), KeyError("x")])
def test_whatever_is_wrong_with_a_sample_is_one_line_that_names_it(error: Exception) -> None:
    with pytest.raises(UserError, match=r"sample a .*on_error=skip") as caught:
        one(error)
    assert "\n" not in str(caught.value)


def test_other_bands_than_the_sensors_are_refused() -> None:
    with pytest.raises(UserError, match="has 4 bands, but Sentinel-2 MSI: B04, B03, B02 has 3"):
        one(Raw(draw(4, 8, 8)))


class Files(Reader):
    """An image and a mask of NumPy for each sample."""

    name = "files"

    @checked("data")
    def __init__(self, root: Any, split: str = "train", **above: Above) -> None:
        self.root = root
        super().__init__(sorted(path.stem for path in root.glob("image/*")), **above)

    def files(self, name: str) -> list[Any]:
        return [self.root / "image" / f"{name}.npy", self.root / "mask" / f"{name}.npy"]

    def read(self, name: str) -> Raw:
        image, mask = (np.load(path) for path in self.files(name))
        return Raw(image, mask)


@pytest.mark.parametrize("count", [5, 32, 64, 100])
def test_changed_masks_and_images_are_other_data(tmp_path: Any, count: int) -> None:
    for folder, shape in (("image", (3, 8, 8)), ("mask", (8, 8))):
        (tmp_path / folder).mkdir()
        for number in range(count):
            np.save(tmp_path / folder / f"{number:03}.npy", np.random.default_rng(number).integers(0, 2, shape))

    def identity() -> Any:
        return Files(tmp_path, sensor=RGB, size=8, label="mask", classes=["a", "b"]).identity

    first = identity()
    assert identity() == first
    for folder in ("mask", "image"):
        kept = identity()
        for path in (tmp_path / folder).glob("*"):
            np.save(path, 1 - np.load(path))
        assert identity() != kept


def test_a_decimal_that_is_no_data_is_found_in_the_kind_of_the_file() -> None:
    for kind in (np.float32, np.float64):
        numbers = np.full((1, 8, 8), 12.5, kind)
        numbers[0, 3, 4] = -999.9
        image = one(Raw(numbers), sensor="HEIGHT", nodata=-999.9)["image"]
        assert float(image[0, 3, 4]) == 0
        assert int((image == 0).sum()) == 1
