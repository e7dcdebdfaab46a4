"""timm's ViTs as feature banks, checked against timm itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deflect.vit import ViTEncoder
from satdifuser.bank import BankError
from satdifuser.data.inputs import RGB, ImageInput
from satdifuser.fusion import GlobalWeighted

TINY = {"embed_dim": 24, "depth": 3, "num_heads": 2}


def encoder(**kwargs: object) -> ViTEncoder:
    values = {"prepare": ImageInput(RGB), "image_size": 32, "patch_size": 8, "options": TINY, **kwargs}
    return ViTEncoder("vit_tiny_patch16_224", **values)  # type: ignore[arg-type]


def test_maps_are_the_patch_tokens_after_each_block() -> None:
    vit = encoder().eval()
    images = torch.rand(2, 13, 32, 32) * 0.3
    after: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda m, i, o: after.append(o)) for block in vit.vit.blocks]
    vit.vit.forward_features(vit.prepare(images))
    for hook in hooks:
        hook.remove()
    bank = vit(images)
    for tap, tokens in zip(bank.spec.taps, after, strict=True):
        for row in range(4):
            for column in range(4):  # token 0 is the class token
                torch.testing.assert_close(bank[tap][:, :, row, column], tokens[:, 1 + 4 * row + column])


def test_a_vits_depths_feed_a_fusion_head_and_learn() -> None:
    vit = encoder(trainable=True, blocks=[0, -1])
    assert vit.spec.names() == ("blocks.0", "blocks.2")
    head = GlobalWeighted(vit.spec, 16)
    head(vit(torch.rand(2, 13, 32, 32))).maps[8].square().mean().backward()
    assert vit.vit.patch_embed.proj.weight.grad.abs().sum() > 0


def test_all_bands_can_enter() -> None:
    vit = encoder(prepare=ImageInput(None), channels=13)
    assert vit(torch.rand(1, 13, 32, 32)).batch_size == 1


def test_frozen_unless_asked_and_seeded() -> None:
    assert not any(p.requires_grad for p in encoder().parameters())
    one, same, other = (encoder(seed=s).vit.patch_embed.proj.weight for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": 30}, "30 px is not divisible into patches of 8 px"),
        ({"blocks": [0, 3]}, "distinct numbers from -3 to 2"),
        ({"blocks": [2, -1]}, "distinct numbers"),
    ],
)
def test_wrong_sizes_and_blocks_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(BankError, match=message):
        encoder(**wrong)


def test_an_unknown_model_lists_near_ones() -> None:
    with pytest.raises(BankError, match=r"timm has no model 'vit_tinny'; it has \w+"):
        ViTEncoder("vit_tinny", prepare=nn.Identity())
