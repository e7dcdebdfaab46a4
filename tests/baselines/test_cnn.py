"""A CNN of timm from scratch: its bank is what its spec says, it depends on its seed, and it learns."""

from __future__ import annotations

import pytest
import timm
import torch

from satdifuser.baselines.cnn import CNNEncoder
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError


def build(**changes: object) -> CNNEncoder:
    return CNNEncoder(prepare=ImageInput(["red", "green"]), **{"model": "test_resnet", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("stages", [None, [-1], [0, 2], [-2, 1]])
def test_the_bank_is_what_timm_gives_for_the_chosen_stages(stages: list[int] | None) -> None:
    encoder = build(stages=stages, seed=3).eval()
    torch.manual_seed(3)
    net = timm.create_model("test_resnet", features_only=True, in_chans=2).eval()
    images = torch.rand(2, 13, 64, 64) * 0.3
    expected = net(images[:, [3, 2]] / 0.15 - 1)
    chosen = sorted({stage % 5 for stage in stages}) if stages else range(5)
    bank = encoder(images, sample_ids=["a", "b"])
    assert [tap.stride for tap in encoder.spec.taps] == [2 ** (stage + 1) for stage in chosen]
    for tap, stage in zip(encoder.spec.taps, chosen, strict=True):
        torch.testing.assert_close(bank[tap], expected[stage])


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build(seed=0).state_dict()
    again, other = build(seed=0).state_dict(), build(seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert build(seed=0).spec != build(seed=1).spec


def test_a_few_steps_lower_the_loss() -> None:
    encoder = build(stages=[-1])
    images = torch.rand(4, 13, 64, 64) * 0.3
    target = torch.randn(4, encoder.spec.taps[0].channels)
    optimiser = torch.optim.Adam(encoder.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        loss = (encoder(images)[encoder.spec.taps[0]].mean((2, 3)) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "resnet10x"}, "encoder.model is 'resnet10x'.*resnet10t"),
        ({"image_size": 48}, "encoder.image_size is 48.*stride of 32"),
        ({"stages": [5]}, r"encoder.stages is \[5\].*0 to 4"),
        ({"stages": []}, r"encoder.stages is \[\]"),
    ],
)
def test_what_cannot_be_built_is_one_line(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        build(**changes)
    assert "\n" not in str(error.value)
