"""Windows of a scene, blended: held to the whole scene at once in float64, for any size, margin and sharing out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from satdifuser.data.bands import find_sensor
from satdifuser.data.files.opened import Place
from satdifuser.errors import UserError
from satdifuser.scenes.scene import Pixels, Scene
from satdifuser.scenes.stream import ahead, stream
from satdifuser.scenes.units import Unit, share, units_of
from satdifuser.scenes.windows import Windows, folded, suited

Array = np.ndarray[Any, Any]


class Memory(Scene):
    """A scene in memory; what is asked of it is kept."""

    name = "memory"

    def __init__(self, image: Array, blank: Array | None = None) -> None:
        self.image = image.astype(np.float32)
        self.blank = np.zeros(image.shape[1:], bool) if blank is None else blank
        self.sensor = find_sensor("LANDSAT8")
        self.place = Place((30.0, 0.0, 500.0, 0.0, -30.0, 900.0), None, *image.shape[1:])
        self.asked: list[tuple[slice, slice]] = []

    @property
    def identity(self) -> dict[str, Any]:
        return {"scene": "memory"}

    def read(self, rows: slice, columns: slice) -> Pixels:
        assert 0 <= rows.start < rows.stop <= self.place.height
        assert 0 <= columns.start < columns.stop <= self.place.width
        self.asked.append((rows, columns))
        return Pixels(self.image[:, rows, columns].copy(), self.blank[rows, columns].copy())


class Network:
    """Two layers of convolutions: an answer looks `reach` px to each side."""

    needed = None

    def __init__(self, size: int, channels: int, reach: int, step: int = 1, bands: int = 11) -> None:
        torch.manual_seed(reach)
        self.size, self.channels, self.step, self.reach, self.calls = size, channels, step, reach, 0
        self.ids: list[Any] = []
        side = 2 * reach + 1
        self.kernel = torch.randn(channels, bands, side, side) / side

    def whole(self, images: Tensor, padding: int) -> Tensor:
        found = F.conv2d(images, self.kernel.to(images), padding=padding).tanh()
        return F.avg_pool2d(found, self.step) if self.step > 1 else found

    def __call__(self, images: Tensor, ids: Sequence[str]) -> Tensor:
        self.calls += len(images)
        self.ids += ids
        return self.whole(images, self.reach)


def scene_of(height: int, width: int, seed: int = 0, blank: Array | None = None) -> Memory:
    return Memory(np.random.default_rng(seed).random((11, height, width)), blank)


def computed(
    scene: Scene, answers: Any, windows: Windows, units: Sequence[Unit], batch: int = 3
) -> tuple[Array, Array]:
    place = windows.place(scene.place)
    values = np.full((answers.channels, place.height, place.width), np.nan, np.float32)
    valid = np.zeros((place.height, place.width), bool)
    for unit, part, there in stream(scene, answers, windows, units, batch):
        values[:, unit.rows, unit.columns], valid[unit.rows, unit.columns] = part, there
    return values, valid


def units_for(scene: Scene, windows: Windows, rows: int = 16, columns: int = 32) -> list[Unit]:
    place = windows.place(scene.place)
    return units_of(place.height, place.width, rows=rows, columns=columns)


def reference(scene: Memory, answers: Network, windows: Windows) -> Array:
    """Every window on the whole padded scene, in float64: weights of each px by a formula of its own."""
    step, size = windows.step, windows.size
    height, width = (-(-n // step) * step for n in (scene.place.height, scene.place.width))
    around = 2 * size
    rows = _mirror(np.arange(-around, height + around), scene.place.height)
    columns = _mirror(np.arange(-around, width + around), scene.place.width)
    padded = scene.image.astype(np.float64)[:, rows][:, :, columns]
    sums = np.zeros((answers.channels, height // step, width // step))
    weights = np.zeros((height // step, width // step))
    margin, ramp = windows.margin // step, windows.overlap // step
    side = np.zeros(size // step)
    for cell in range(size // step):
        edge = min(cell, size // step - 1 - cell) - margin
        if edge >= 0:
            side[cell] = np.sin((edge + 0.5) / ramp * np.pi / 2) ** 2 if edge < ramp else 1.0
    for top in range(-windows.margin, height, windows.stride):
        for left in range(-windows.margin, width, windows.stride):
            image = padded[:, top + around : top + around + size, left + around : left + around + size]
            found = answers.whole(torch.from_numpy(image)[None], answers.reach)[0].numpy()
            for y in range(size // step):
                for x in range(size // step):
                    row, column = top // step + y, left // step + x
                    if 0 <= row < sums.shape[1] and 0 <= column < sums.shape[2] and side[y] * side[x] > 0:
                        sums[:, row, column] += found[:, y, x] * side[y] * side[x]
                        weights[row, column] += side[y] * side[x]
    return sums / weights


def _mirror(places: Array, length: int) -> Array:
    """Step by step, as one walks between two mirrors."""
    found = []
    for place in places:
        while length > 1 and not 0 <= place < length:
            place = -place if place < 0 else 2 * (length - 1) - place
        found.append(place if length > 1 else 0)
    return np.array(found)


SHAPES = [(40, 57), (1, 33), (33, 1), (5, 7), (64, 64), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("windows", [Windows(16, 2, 4), Windows(16, 4, 4, 4), Windows(12, 0, 0), Windows(16, 0, 8, 2)])
def test_blended_answers_are_those_of_the_whole_scene_in_float64(shape: tuple[int, int], windows: Windows) -> None:
    scene, answers = scene_of(*shape), Network(windows.size, 3, 3, windows.step)
    found, valid = computed(scene, answers, windows, units_for(scene, windows))
    assert np.abs(found - reference(scene, answers, windows)).max() < 1e-5
    assert valid.all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_of_single_pixels_answers_as_if_it_saw_the_whole_scene(shape: tuple[int, int]) -> None:
    scene, answers = scene_of(*shape), Network(16, 4, 0)
    found, _ = computed(scene, answers, Windows(16, 2, 4), units_for(scene, Windows(16, 2, 4)))
    assert np.abs(found - answers.whole(torch.from_numpy(scene.image)[None], 0)[0].numpy()).max() < 1e-5


def test_where_windows_lie_moves_nothing_beyond_the_margin_that_a_network_needs() -> None:
    scene, reach = scene_of(50, 61), 3
    answers = Network(20, 2, reach)
    padded = np.pad(scene.image, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    whole = answers.whole(torch.from_numpy(padded)[None], 0)[0].numpy()
    for margin, overlap in ((3, 0), (3, 5), (5, 4), (4, 0)):
        windows = Windows(20, margin, overlap)
        assert np.abs(computed(scene, answers, windows, units_for(scene, windows))[0] - whole).max() < 1e-5
    small = Windows(20, reach - 1, 0)
    assert np.abs(computed(scene, answers, small, units_for(scene, small))[0] - whole).max() > 1e-2


@pytest.mark.parametrize("windows", [Windows(16, 2, 4), Windows(16, 0, 4, 4), Windows(12, step=4, single=True)])
def test_the_bytes_are_the_same_however_units_are_shared_out_and_however_they_are_cut(windows: Windows) -> None:
    scene = scene_of(70, 90, blank=np.random.default_rng(5).random((70, 90)) < 0.3)
    scene.blank[:40, 20:60] = True
    answers = Network(windows.size, 3, 2, windows.size if windows.single else windows.step)
    units = units_for(scene, windows, 8, 12)
    whole, valid = computed(scene, answers, windows, units, 4)
    chance = np.random.default_rng(0)
    drawn = [unit for unit in units if chance.random() < 0.5]
    for shares in (
        [share(units, part, 2) for part in range(2)],
        [share(units, part, 3) for part in (2, 0, 1)],
        [drawn, [unit for unit in units if unit not in drawn]],
    ):
        values, there = np.full_like(whole, np.nan), np.zeros_like(valid)
        for mine in shares:
            for unit, part, counts in stream(scene, answers, windows, mine, 4):
                values[:, unit.rows, unit.columns], there[unit.rows, unit.columns] = part, counts
        assert values.tobytes() == whole.tobytes()
        assert (there == valid).all()


def test_windows_without_data_are_not_computed_and_pixels_without_data_do_not_count() -> None:
    blank = np.ones((64, 64), bool)
    blank[40:44, 9] = False
    scene = scene_of(64, 64, blank=blank)
    windows, answers = Windows(16, 2, 4), Network(16, 2, 2)
    _, valid = computed(scene, answers, windows, units_for(scene, windows))
    assert (valid == ~blank).all()
    rows, columns = ({n // windows.stride, (n - windows.overlap) // windows.stride} for n in (40, 9))
    assert 1 <= answers.calls <= 2 * len(rows) * len(columns) * 2
    nothing = scene_of(30, 30, blank=np.ones((30, 30), bool))
    answers = Network(16, 2, 2)
    values, valid = computed(nothing, answers, windows, units_for(nothing, windows))
    assert answers.calls == 0
    assert not valid.any()
    assert (values == 0).all()


def test_a_pixel_of_a_coarse_output_counts_where_any_of_it_has_data() -> None:
    blank = np.random.default_rng(1).random((30, 45)) < 0.9
    scene, windows = scene_of(30, 45, blank=blank), Windows(16, 4, 0, 4)
    _, valid = computed(scene, Network(16, 1, 1, 4), windows, units_for(scene, windows, 3, 5))
    slow = [[(~blank[y * 4 : y * 4 + 4, x * 4 : x * 4 + 4]).any() for x in range(12)] for y in range(8)]
    assert (valid == np.array(slow)).all()


@pytest.mark.parametrize("stride", [3, 4, 8])
def test_tiles_are_answered_one_by_one_each_around_its_pixel(stride: int) -> None:
    scene, size = scene_of(21, 30), 8
    windows, answers = Windows(size, step=stride, single=True), Network(size, 2, 1, size)
    found, _ = computed(scene, answers, windows, units_for(scene, windows, 3, 4))
    assert found.shape[1:] == (-(-21 // stride), -(-30 // stride))
    before = (size - stride) // 2
    rows, columns = _mirror(np.arange(-8, 40), 21), _mirror(np.arange(-8, 50), 30)
    for y in range(found.shape[1]):
        for x in range(found.shape[2]):
            top, left = y * stride - before + 8, x * stride - before + 8
            image = scene.image[:, rows[top : top + size]][:, :, columns[left : left + size]]
            assert np.abs(found[:, y, x] - answers(torch.from_numpy(image)[None], [])[0, :, 0, 0].numpy()).max() < 1e-5


def test_a_scene_is_read_once_and_a_few_rows_at_a_time() -> None:
    scene = scene_of(1500, 64)
    windows = Windows(32, 4, 4)
    computed(scene, Network(32, 1, 0), windows, units_for(scene, windows, 512, 64), 8)
    assert sum(rows.stop - rows.start for rows, _ in scene.asked) <= 1500 + 2 * windows.size
    assert max(rows.stop - rows.start for rows, _ in scene.asked) <= 256 + windows.size


def test_weights_of_neighbours_add_up_to_one() -> None:
    windows = Windows(64, 8, 8)
    assert np.allclose(windows.sums(8, 400), 1, atol=1e-12)
    assert (windows.start(0), windows.stride) == (-8, 40)


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_lines_are_mirrored_at_both_ends(length: int) -> None:
    assert (folded(-25, 40, length) == _mirror(np.arange(-25, 40), length)).all()


def test_usual_windows_are_moved_by_multiples_of_the_coarsest_stride_where_that_can_be() -> None:
    assert suited(64, 1, 8) == Windows(64, 8, 8)
    assert suited(224, 1, 16) == Windows(224, 16, 16)
    assert suited(64, 1, 64) == Windows(64, 8, 8)
    assert suited(80, 16, 16) == Windows(80, 16, 16, 16)
    assert suited(4, 4, 4) == Windows(4, 0, 0, 4)
    with pytest.raises(UserError, match=r"no middle left.*window\.margin"):
        suited(16, 1, 1, margin=8)
    with pytest.raises(UserError, match=r"window\.margin is 3.*multiple"):
        suited(16, 4, 4, margin=3)


def test_errors_of_the_reading_thread_are_raised_where_its_items_are_waited_for() -> None:
    def items() -> Any:
        yield 1
        raise UserError("the disk is gone")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(UserError, match="the disk is gone"):
        next(found)
    endless = ahead(iter(int, 1))
    assert next(endless) == 0
    endless.close()  # the thread ends with it, or this waits for ever
