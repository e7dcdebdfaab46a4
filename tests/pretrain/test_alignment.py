"""What pretraining can learn beside denoising: against slow loops, and with what must not move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from satdifuser.baselines.colours import ColourStatistics
from satdifuser.data.bands import SENTINEL2, SENTINEL2_RGB
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError
from satdifuser.pretrain.alignment import Aligned, Teacher, align
from satdifuser.pretrain.denoising import Denoising
from satdifuser.pretrain.draws import Draws
from satdifuser.pretrain.views import LEVELS, Views, vicreg
from satdifuser.settings.pretraining import Align

Make = Callable[..., Any]


class Answers(torch.nn.Module):
    """An encoder of two maps, the second coarser: what they show can be told from the image by hand."""

    def __init__(self, prepare: ImageInput) -> None:
        super().__init__()
        from satdifuser.bank import BankSpec, Tap

        self.prepare, self.weight = prepare, torch.nn.Parameter(torch.ones(()))
        taps = (Tap("fine", None, 0, 3, 2), Tap("coarse", None, 1, 3, 4))
        self.spec = BankSpec(taps, "answers", "none", (8, 8))

    def forward(self, images: Tensor, **_: Any) -> Any:
        from satdifuser.bank import FeatureBank

        self.images = images
        x = self.prepare(images) * self.weight
        pools = [torch.nn.functional.avg_pool2d(x, tap.stride) for tap in self.spec.taps]
        return FeatureBank(self.spec, dict(zip(self.spec.taps, pools, strict=True)))


@pytest.fixture
def prepare() -> ImageInput:
    return ImageInput(["B04", "B03", "B02"], sensor=SENTINEL2_RGB, mean=0.34, std=0.15)


@pytest.fixture
def objective(unet: Make, schedule: Make) -> Denoising:
    return Denoising(unet(), schedule())


def slow_vicreg(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Written as the paper has it, number by number."""
    count, width = one.shape
    invariance = sum((one[i, j] - other[i, j]) ** 2 for i in range(count) for j in range(width)) / (count * width)
    variance = covariance = 0.0
    for found in (one, other):
        for j in range(width):
            variance += max(0.0, 1 - np.sqrt(np.var(found[:, j], ddof=1) + 1e-4)) / width
            for k in range(width):
                if j != k:
                    covariance += np.cov(found[:, j], found[:, k])[0, 1] ** 2 / width
    return float(25 * invariance + 25 * variance / 2 + covariance)


def test_the_loss_of_two_views_is_the_published_one() -> None:
    dice = np.random.default_rng()
    one, other = (dice.normal(size=(7, 5)) * dice.uniform(0.2, 2, 5) for _ in range(2))
    found = vicreg(torch.from_numpy(one), torch.from_numpy(other))
    assert float(found) == pytest.approx(slow_vicreg(one, other), rel=1e-10)


def test_a_whole_view_without_light_is_the_image_in_one_of_eight_positions() -> None:
    class Plain(Draws):
        def normal(self, shape: tuple[int, ...]) -> Tensor:
            return torch.zeros(self.total, *shape)

    images = torch.rand(16, 3, 8, 8)
    found = Views(4, smallest=1.0).cut(images, Plain(0, 1, 16))
    turned = [torch.rot90(images, k, (2, 3)) for k in range(4)]
    positions = torch.stack([*turned, *(image.flip(3) for image in turned)])
    away = (positions - found).abs().amax((2, 3, 4)).amin(0)
    assert float(away.max()) < 1e-5
    assert not torch.equal(found, images)


def test_a_view_is_a_part_of_its_image_and_never_of_another() -> None:
    """A constant image stays one, whatever is cut of it, and so does a step between two colours."""
    draws = Draws(int(torch.randint(1 << 30, ())), 3, 32)
    views = Views(4)
    flat = views.cut(torch.full((32, 3, 8, 8), 0.4), draws)
    assert float(flat.flatten(2).std(2).max()) < 1e-6
    assert float((flat.mean((1, 2, 3)) - 0.4).abs().max()) > 0  # light
    levels = views.levels(Draws(1, 1, 4000))
    assert 0 <= int(levels.min()) < int(levels.max()) < LEVELS
    assert float((levels < LEVELS / 4).float().mean()) == pytest.approx(0.5, abs=0.03)  # u^2 < 1/4 half of the time


def test_a_teacher_sees_the_sensors_image_and_its_channels_are_standardised(prepare: ImageInput) -> None:
    images = torch.rand(12, 3, 8, 8) * 0.3
    inputs, encoder = prepare(images), Answers(prepare)
    teacher = Teacher(encoder, prepare, inputs, batch=5).train()
    assert not teacher.encoder.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    found = teacher(inputs)
    torch.testing.assert_close(encoder.images, images)
    assert found.shape == (12, 6, 4, 4)
    coarse = torch.nn.functional.avg_pool2d(inputs, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    whole = torch.cat([torch.nn.functional.avg_pool2d(inputs, 2), coarse], 1).double()
    expected = (whole - whole.mean((0, 2, 3), keepdim=True)) / whole.std((0, 2, 3), keepdim=True)
    torch.testing.assert_close(found.double(), expected, atol=2e-3, rtol=1e-3)


def test_a_teachers_components_are_principal_and_of_one_size(prepare: ImageInput) -> None:
    inputs = prepare(torch.rand(40, 3, 8, 8) * 0.3)
    teacher = Teacher(Answers(prepare), prepare, inputs, components=3)
    found = teacher(inputs).double().permute(0, 2, 3, 1).flatten(0, 2).numpy()
    assert found.shape == (640, 3)
    np.testing.assert_allclose(np.cov(found.T), np.eye(3), atol=0.02)
    rows = teacher._maps(inputs).double().permute(0, 2, 3, 1).flatten(0, 2).numpy()
    scores = np.linalg.svd(rows - rows.mean(0), full_matrices=False)[0][:, :3]
    likeness = np.abs(np.corrcoef(scores.T, found.T)[:3, 3:])
    np.testing.assert_allclose(likeness, np.eye(3), atol=0.02)
    with pytest.raises(UserError, match=r"align\.components is 7: the teacher has 6 channels"):
        Teacher(Answers(prepare), prepare, inputs, components=7)


def test_inputs_go_back_to_the_sensors_image_and_come_out_the_same() -> None:
    prepare = ImageInput(["B08", "B02"], sensor=SENTINEL2, low=[0.0, 0.1], high=[0.4, 0.3], mean=0.3, std=0.2)
    images = torch.rand(2, 13, 4, 4) * 0.5
    inputs = prepare(images)
    back = prepare.sensed(inputs)
    assert back.shape == images.shape
    torch.testing.assert_close(prepare(back), inputs)
    unseen = [place for place, name in enumerate(SENTINEL2.names) if name not in ("B08", "B02")]
    assert not back[:, unseen].any()


def test_the_likeness_is_the_cosine_at_each_place_of_the_coarser_map(objective: Denoising) -> None:
    head = torch.nn.Identity()
    aligned = Aligned(objective, "mid_block", head=head)
    fine, coarse = torch.randn(3, 6, 4, 4), torch.randn(3, 6, 2, 2)
    for found, wanted in ((fine, coarse), (coarse, fine), (coarse, torch.randn(3, 6, 2, 2))):
        one, other = (
            map_.unflatten(2, (2, -1)).unflatten(4, (2, -1)).mean((3, 5)).double().numpy() for map_ in (found, wanted)
        )
        for number, value in enumerate(aligned.unlike(found, wanted)):
            cosines = []
            for y in range(2):
                for x in range(2):
                    a, b = one[number, :, y, x], other[number, :, y, x]
                    cosines.append(a @ b / np.sqrt((a @ a) * (b @ b)))
            assert float(value) == pytest.approx(1 - float(np.mean(cosines)), abs=1e-5)


@pytest.mark.parametrize("views", [None, 0.02])
def test_it_is_the_loss_of_denoising_and_what_is_asked_for_beside_it(
    objective: Denoising, prepare: ImageInput, views: float | None
) -> None:
    inputs = prepare(torch.rand(6, 3, 8, 8) * 0.3)
    teacher = Teacher(Answers(prepare), prepare, inputs)
    aligned = align(objective, Align(weight=0.7, width=16, views=views), teacher, 8, seed=3).train()
    plain, loss = (one(inputs, Draws(0, 5, 6)) for one in (objective, aligned))
    maps: dict[str, Tensor] = {}
    hook = objective.unet.mid_block.register_forward_hook(lambda module, given, out: maps.setdefault("mid", out))
    aligned(inputs, Draws(0, 5, 6))
    hook.remove()
    added = loss - plain - 0.7 * aligned.unlike(maps["mid"], teacher(inputs))
    if views is None:
        assert float(added.detach().abs().max()) < 1e-5
    else:
        assert float(added.detach().std()) < 1e-5  # of the batch, and the same for each image
        assert float(added.detach().mean()) > 0
    loss.sum().backward()
    assert all(parameter.grad is not None for parameter in aligned.parameters() if parameter.requires_grad)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_heads_depend_on_the_seed_alone(objective: Denoising) -> None:
    heads = [align(objective, Align(views=0.1), None, 8, seed).views for seed in (1, 1, 2)]
    first, second, other = (torch.cat([p.flatten() for p in head.parameters()]) for head in heads if head is not None)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("tap", "said"),
    [
        ("mid_blok", "align.tap is mid_blok, and the UNet has no such module; did you mean mid_block"),
        ("time_embedding", "align.tap is time_embedding, which gives no map"),
    ],
)
def test_a_place_that_gives_no_map_is_said(objective: Denoising, tap: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        align(objective, Align(tap=tap, views=0.1), None, 8, seed=0)
    assert said in str(caught.value)


def test_an_encoder_of_ours_can_be_the_teacher(objective: Denoising, prepare: ImageInput) -> None:
    images = prepare(torch.rand(4, 3, 8, 8) * 0.3)
    teacher = Teacher(ColourStatistics(prepare=prepare, image_size=8), prepare, images)
    loss = align(objective, Align(), teacher, 8, seed=0)(images, Draws(0, 0, 4))
    assert loss.shape == (4,)
    assert bool(loss.isfinite().all())


def test_a_teacher_is_not_shown_bands_that_the_unet_lacks_as_zeros() -> None:
    some, more = (ImageInput(bands, sensor=SENTINEL2) for bands in (["B04", "B03", "B02"], ["B04", "B03", "B08"]))
    with pytest.raises(UserError, match=r"teacher sees B08, which the UNet's input lacks: set teacher\.prepare\.bands"):
        Teacher(Answers(more), some, torch.zeros(4, 3, 8, 8))
