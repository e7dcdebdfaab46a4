"""Which kind of module a tap is of, and which part of the network it is in."""

from __future__ import annotations

import pytest

from satdifuser.bank import BankSpec, Tap
from satdifuser.report.depth.content import Place
from satdifuser.study.places import place_of, places_of


@pytest.mark.parametrize(
    ("name", "kind", "block"),
    [
        ("blocks.3", "block", "blocks.3"),
        ("blocks.11.class", "class", "blocks.11"),
        ("blocks.3.qkv", "qkv", "blocks.3"),
        ("blocks.0.attention", "attention", "blocks.0"),
        ("blocks.0.fc2", "fc2", "blocks.0"),
        ("blocks.0.norm1", "norm1", "blocks.0"),
        ("up_blocks.1.resnets.0.conv2", "conv2", "up_blocks.1"),
        ("down_blocks.10.resnets.0", "resnet", "down_blocks.10"),
        ("down_blocks.2.attentions.1.transformer_blocks.0.attn1", "attn1", "down_blocks.2"),
        ("up_blocks.1.attentions.0.transformer_blocks.0.norm3", "norm3", "up_blocks.1"),
        ("up_blocks.1.resnets.0.norm2", "norm2", "up_blocks.1"),
        ("up_blocks.1.upsamplers.0", "sampler", "up_blocks.1"),
        ("up_blocks.1", "block", "up_blocks.1"),
        ("mid_block", "block", "mid_block"),
        ("mid_block.attentions.0", "attention", "mid_block"),
        ("mid_block.resnets.1.time_emb_proj", "time_emb_proj", "mid_block"),
        ("conv_in", "conv_in", "conv_in"),
        ("conv_out", "conv_out", "conv_out"),
        ("level2", "block", "level2"),
        ("blocksmith", "block", "blocksmith"),
    ],
)
def test_the_name_of_a_tap_says_its_kind_and_its_block(name: str, kind: str, block: str) -> None:
    assert place_of(Tap(name, 61, 4, 24, 8)) == Place(name, 61, 4, 24, 8, kind, block)


def test_the_places_of_a_spec_are_its_taps_in_their_order() -> None:
    taps = tuple(Tap(n, t, d, 4, 8) for t in (61, 21) for d, n in enumerate(("mid_block", "up_blocks.0")))
    places = places_of(BankSpec(taps, "toy", "none", (32, 32)))
    assert [(str(place), place.number) for place in places] == [
        ("mid_block@61", 0),
        ("up_blocks.0@61", 1),
        ("mid_block@21", 0),
        ("up_blocks.0@21", 1),
    ]
