"""The heads as released, against stand-ins with the same random weights: the equalities, and the differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from satdifuser.bank import FeatureBank
from satdifuser.errors import UserError
from satdifuser.fusion import GlobalWeighted, LocalizedWeighted, MixtureOfExperts
from satdifuser.fusion.order import released_order

ATTENTION = "up_blocks.1.attentions.{}.transformer_blocks.0.attn1"
# as computed: each resnet before its attention
TAPS = (
    ("up_blocks.0.resnets.0.conv2", 12, 8),
    ("up_blocks.0.resnets.1.conv2", 12, 8),
    ("up_blocks.1.resnets.0.conv2", 10, 4),
    (ATTENTION.format(0), 10, 4),
    ("up_blocks.1.resnets.1.conv2", 10, 4),
    (ATTENTION.format(1), 10, 4),
)
# as released: of each stride, from the finest, attentions before convolutions
ORDER = [
    [ATTENTION.format(0), ATTENTION.format(1), "up_blocks.1.resnets.0.conv2", "up_blocks.1.resnets.1.conv2"],
    ["up_blocks.0.resnets.0.conv2", "up_blocks.0.resnets.1.conv2"],
]
WIDTH = 256  # the narrowest at which all norms have 32 groups, as released


def widths(taps=TAPS):
    channels = {name: c for name, c, _ in taps}
    return [[channels[name] for name in names] for names in ORDER]


def loaded(head, standin):
    """Our head with the weights of a stand-in, put in place one by one."""
    state, names = standin.state_dict(), head.spec.names()
    order = [name for names in ORDER for name in names]
    ours = {}

    def block(mine, their, inputs=None):
        for n, (layer, conv) in enumerate(zip(("reduce", "spread", "expand", "shortcut"), CONVS, strict=True), start=1):
            weight = state[f"{their}.0.{conv}.weight"]
            ours[f"{mine}.{layer}.weight"] = weight if inputs is None or n in (2, 3) else weight[:, inputs]
            ours[f"{mine}.norm{n}.weight"] = state[f"{their}.0.{conv}.norm.weight"]
            ours[f"{mine}.norm{n}.bias"] = state[f"{their}.0.{conv}.norm.bias"]

    if "bottleneck_layers.0.0.conv1.weight" in state:
        for name in names:
            block(f"project.{name.replace('.', '/')}", f"bottleneck_layers.{order.index(name)}")
    for s, stride in enumerate((4, 8)):
        mine, their = [n for n, _, at in TAPS if at == stride], ORDER[s]
        if isinstance(head, LocalizedWeighted):
            rows = [t * len(their) + their.index(name) for t in range(3) for name in mine]
            for part in ("weight", "bias"):
                ours[f"score.{stride}.{part}"] = state[f"gate_modules.{s}.gate_conv.{part}"][rows]
        if isinstance(head, MixtureOfExperts):
            channels = dict(zip(their, standin.widths[s], strict=True))
            starts = dict(zip(their, np.cumsum([0, *channels.values()]), strict=False))
            inputs = [int(starts[name]) + c for name in mine for c in range(channels[name])]
            ours[f"gates.{stride}.score.weight"] = state[f"scale_moes.{s}.gate_network.0.weight"][:, inputs]
            ours[f"gates.{stride}.score.bias"] = state[f"scale_moes.{s}.gate_network.0.bias"]
            ours[f"gates.{stride}.log_temperature"] = state[f"scale_moes.{s}.temperature"].log()
            for e in range(4):
                block(f"experts.{stride}.{e}", f"scale_moes.{s}.experts.{e}", inputs)
    if isinstance(head, GlobalWeighted):
        mixing = state["mixing_weights"].view(3, -1)
        ours["logits"] = torch.stack([mixing[:, order.index(name)] for name in names], 1)
    if isinstance(head, MixtureOfExperts):
        ours["steps"] = torch.zeros((), dtype=torch.long)
    head.double().load_state_dict(ours)
    return head.eval()


CONVS = ("conv1", "conv2", "conv3", "shortcut")


def compare(head, bank, expected):
    with torch.no_grad():
        fused = head(bank)
    for stride, value in zip((4, 8), expected, strict=True):
        np.testing.assert_allclose(fused.maps[stride], value, rtol=1e-12, atol=1e-12)
    return fused


def cosine(one, other):
    """Of what is not the same for all pixels of a channel: that much is norms and biases."""
    one, other = (x - x.mean((0, 2, 3), keepdim=True) for x in (one, other))
    return float(F.cosine_similarity(one.flatten(), other.flatten(), dim=0))


# --- the order of taps


def test_released_order_is_block_by_block_attention_before_convolution():
    assert released_order([name for name, _, _ in TAPS]) == (*ORDER[1], *ORDER[0])
    for stride, names in zip((4, 8), ORDER, strict=True):
        assert released_order([name for name, _, at in TAPS if at == stride]) == tuple(names)


def test_taps_that_the_released_code_does_not_read_stay_as_computed_behind_the_others():
    mixed = ["down_blocks.0.resnets.0.conv2", "up_blocks.10.resnets.0.conv2", "mid_block.attentions.0.attn1"]
    mixed += ["up_blocks.2.resnets.0", "up_blocks.2.attentions.0.attn1", "up_blocks.2.attentions.0.attn1.to_q"]
    expected = ["up_blocks.2.attentions.0.attn1", "up_blocks.10.resnets.0.conv2", "down_blocks.0.resnets.0.conv2"]
    expected += ["mid_block.attentions.0.attn1", "up_blocks.2.resnets.0", "up_blocks.2.attentions.0.attn1.to_q"]
    assert released_order(mixed) == tuple(expected)


# --- global weights


@torch.no_grad()
def test_gw_is_the_released_one(toy_spec, toy_bank, theirs):
    spec = toy_spec(taps=TAPS)
    bank = toy_bank(spec)
    standin = theirs.randomised(theirs.GW(widths(), 3, WIDTH))
    compare(loaded(GlobalWeighted(spec, WIDTH), standin), bank, standin.fuse(theirs.listed(bank, ORDER)))


# --- localized weights


@pytest.mark.parametrize("tau", [1.0, 0.3])
@pytest.mark.parametrize("released", [True, False])
@torch.no_grad()
def test_lw_is_the_released_one_and_without_its_fault_ours(toy_spec, toy_bank, theirs, released, tau):
    spec = toy_spec(taps=TAPS)
    bank = toy_bank(spec)
    standin = theirs.randomised(theirs.LW(widths(), 3, WIDTH, tau, advanced=not released))
    head = loaded(LocalizedWeighted(spec, WIDTH, tau=tau, released=released), standin)
    compare(head, bank, standin.fuse(theirs.listed(bank, ORDER)))


@torch.no_grad()
def test_lw_released_is_not_ours(toy_spec, toy_bank, theirs):
    spec = toy_spec(taps=TAPS)
    bank = toy_bank(spec)
    standin = theirs.randomised(theirs.LW(widths(), 3, WIDTH))
    mine, released = (loaded(LocalizedWeighted(spec, WIDTH, released=r), standin)(bank).maps for r in (False, True))
    for stride in (4, 8):
        assert cosine(mine[stride], released[stride]) < 0.9


@torch.no_grad()
def test_lw_released_reads_the_first_tap_of_each_stride_alone(toy_spec, toy_bank, randomised):
    spec = toy_spec(taps=TAPS)
    bank = toy_bank(spec)
    head = randomised(LocalizedWeighted(spec, 16, released=True))
    first = {names[0] for names in ORDER}
    noise = {tap: value if tap.name in first else torch.randn_like(value) for tap, value in bank.items()}
    before, after = head(bank), head(FeatureBank(spec, noise))
    assert all(torch.equal(before.maps[stride], after.maps[stride]) for stride in (4, 8))
    for name, stride in zip(sorted(first, reverse=True), (4, 8), strict=True):
        other = {tap: torch.randn_like(value) if tap.name == name else value for tap, value in bank.items()}
        assert not torch.allclose(head(FeatureBank(spec, other)).maps[stride], before.maps[stride])


@torch.no_grad()
def test_lw_released_weighs_what_is_read_and_not_what_reads_it(toy_spec, toy_bank, randomised):
    spec = toy_spec(taps=TAPS)
    bank = toy_bank(spec)
    head = randomised(LocalizedWeighted(spec, 16, released=True))
    fused = head(bank)
    for stride, first in ((4, 1), (8, 0)):  # of ours
        pixels = fused.details["pixel_weights"][stride]
        exps = []
        for t in (21, 61, 97):
            read = bank.map(spec.names(stride)[first], t)
            exps.append([head.project[name.replace(".", "/")](read) for name in spec.names(stride)])
        mean = sum(map(sum, exps)) / (3 * len(exps[0]))
        shares = head.score[str(stride)](mean).exp()
        shares = (shares / shares.sum(1, keepdim=True)).unflatten(1, (3, -1))
        for place in range(pixels.shape[2]):
            expected = shares.sum(2) if place == first else torch.zeros_like(shares[:, :, 0])
            np.testing.assert_allclose(pixels[:, :, place], expected, atol=1e-12)
        np.testing.assert_allclose(fused.weights[stride], pixels.mean((0, 3, 4)), atol=1e-12)
        assert float(fused.weights[stride].sum()) == pytest.approx(1)


@torch.no_grad()
def test_lw_released_reads_past_the_first_tap_where_one_is_wider(toy_spec, toy_bank, theirs):
    wide = tuple((n, 15 if n.endswith("resnets.0.conv2") and s == 4 else c, s) for n, c, s in TAPS)
    spec = toy_spec(taps=wide)
    bank = toy_bank(spec)
    standin = theirs.randomised(theirs.LW(widths(wide), 3, WIDTH))
    head = loaded(LocalizedWeighted(spec, WIDTH, released=True), standin)
    fused = compare(head, bank, standin.fuse(theirs.listed(bank, ORDER)))
    weights = fused.weights[4]  # as computed: convolution (which reads 10 and 5 channels), attention, and again
    assert bool((weights[:, [0, 2]] == 0).all())
    assert bool((weights[:, 3] > 0).all())
    assert float(weights.sum()) == pytest.approx(1)


def test_lw_released_trains_every_bottleneck(toy_spec, toy_bank):
    spec = toy_spec(taps=TAPS)
    head = LocalizedWeighted(spec, 16, released=True).double()
    sum((v * torch.randn_like(v)).sum() for v in head(toy_bank(spec)).maps.values()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in head.parameters())


# --- mixture of experts


@pytest.mark.parametrize(("before", "dense"), [(0, 3), (3, 3), (6, 2), (7, 1), (8, 0), (20, 0)])
@torch.no_grad()
def test_moe_is_the_released_one_dense_sparse_and_across_the_end_of_the_warm_up(
    toy_spec, toy_bank, theirs, before, dense
):
    spec = toy_spec(taps=TAPS)
    bank = toy_bank(spec)
    standin = theirs.randomised(theirs.MoE(widths(), 3, WIDTH, top_k=2, warmup=9))
    head = loaded(MixtureOfExperts(spec, WIDTH, experts=4, top_k=2, warmup_steps=9, released=True), standin)
    head.steps.fill_(before)
    for mixture in standin.scale_moes:
        mixture.count = before
    fused = compare(head, bank, standin.fuse(theirs.listed(bank, ORDER)))
    for usage in fused.details["gate_usage"].values():
        used = (usage > 0).sum(1).tolist()
        assert used[:dense] == [4] * dense
        assert len(used) == 3
    assert int(head.steps) == before + 3
    assert fused.aux_loss is None


@pytest.mark.parametrize("warmup", [0, 500])
@torch.no_grad()
def test_moe_of_ours_is_the_released_one_away_from_the_end_of_the_warm_up(toy_spec, toy_bank, theirs, warmup):
    spec = toy_spec(taps=TAPS)
    bank = toy_bank(spec)
    standin = theirs.randomised(theirs.MoE(widths(), 3, WIDTH, top_k=2, warmup=warmup))
    head = loaded(MixtureOfExperts(spec, WIDTH, experts=4, top_k=2, warmup_steps=warmup), standin)
    compare(head, bank, standin.fuse(theirs.listed(bank, ORDER)))


@pytest.mark.parametrize("training", [True, False])
def test_moe_released_counts_every_timestep_of_every_pass_and_no_step(toy_spec, toy_bank, training):
    spec = toy_spec()
    bank = toy_bank(spec, batch=1)
    head = MixtureOfExperts(spec, 8, experts=4, top_k=1, warmup_steps=8, released=True).double().train(training)
    seen = []
    for _ in range(4):
        seen += (head(bank).details["gate_usage"][8] > 0).sum(1).tolist()
        head.step_done()
    assert int(head.steps) == 12
    assert seen == [4] * 7 + [1] * 5  # the eighth is the first that is not below eight


def test_moe_released_crosses_the_warm_up_with_gradients(toy_spec, toy_bank):
    spec = toy_spec()
    head = MixtureOfExperts(spec, 8, experts=4, top_k=1, warmup_steps=2, released=True).double()
    sum((v * torch.randn_like(v)).sum() for v in head(toy_bank(spec)).maps.values()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in head.parameters())


def test_released_is_a_yes_or_no(toy_spec):
    for head in (LocalizedWeighted, MixtureOfExperts):
        with pytest.raises(UserError, match=r"fusion\.released is 'both'"):
            head(toy_spec(), 16, released="both")
