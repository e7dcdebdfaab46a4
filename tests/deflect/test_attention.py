"""Untangled attention against explicit softmax(Q K^T) V per head, and against the pretrained layers themselves."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from timm.layers import Attention as TimmLayer
from torch import nn
from torchgeo.models.croma import Attention as CromaLayer

from deflect.attention import CromaAttention, TimmAttention, carry, untangled_attention

pytestmark = pytest.mark.usefixtures("one_kernel")

WIDTH, HEADS, TOKENS = 24, 3, 7
TIMM = {
    "plain": {},
    "qkv_bias": {"qkv_bias": True},
    "qk_norm": {"qkv_bias": True, "qk_norm": True, "norm_layer": nn.LayerNorm},
    "output_norm": {"qk_norm": True, "scale_norm": True, "norm_layer": nn.LayerNorm},
    "no_projection_bias": {"proj_bias": False},
}


def norm(p: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    """LayerNorm, where the layer has one."""
    if f"{name}.weight" not in p:
        return x
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def by_hand(
    p: dict[str, np.ndarray],
    qkv: str,
    out: str,
    asks: np.ndarray,
    gives: np.ndarray,
    heads: int,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """Attention of one sample: the map of the tokens `asks`, applied to the values of the tokens `gives`."""
    weight, shift = p[f"{qkv}.weight"], p.get(f"{qkv}.bias", np.zeros(3 * WIDTH))
    each = WIDTH // heads
    joined = np.zeros((len(asks), WIDTH))
    for head in range(heads):
        rows = [slice(part * WIDTH + head * each, part * WIDTH + (head + 1) * each) for part in range(3)]
        q = norm(p, "q_norm", asks @ weight[rows[0]].T + shift[rows[0]])
        k = norm(p, "k_norm", asks @ weight[rows[1]].T + shift[rows[1]])
        v = gives @ weight[rows[2]].T + shift[rows[2]]
        scores = q @ k.T / np.sqrt(each)
        share = softmax(scores if bias is None else scores + bias[head], axis=-1)
        joined[:, head * each : (head + 1) * each] = share @ v
    return norm(p, "norm", joined) @ p[f"{out}.weight"].T + p.get(f"{out}.bias", 0.0)


def streams(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, TOKENS, WIDTH, dtype=dtype), torch.randn(2, TOKENS, WIDTH, dtype=dtype)


@pytest.mark.parametrize("options", TIMM.values(), ids=TIMM)
def test_timms_map_of_the_principal_tokens_carries_both_streams(
    randomised, slow: SimpleNamespace, options: dict[str, object]
) -> None:
    layer = randomised(TimmLayer(WIDTH, HEADS, **options).eval())
    parameters = slow.parameters(layer)
    p, a = streams()
    found = untangled_attention(TimmAttention(layer), p, a)
    for mine, gives in zip(found, (p, a), strict=True):
        for sample in range(2):
            expected = by_hand(parameters, "qkv", "proj", p[sample].numpy(), gives[sample].numpy(), HEADS)
            np.testing.assert_allclose(mine[sample].detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_cromas_map_with_its_distances_carries_both_streams(randomised, slow: SimpleNamespace) -> None:
    layer = randomised(CromaLayer(WIDTH, HEADS).eval())
    parameters = slow.parameters(layer)
    p, a = streams()
    bias = -torch.rand(1, HEADS, TOKENS, TOKENS, dtype=torch.float64) * 3
    found = untangled_attention(CromaAttention(layer), p, a, bias)
    for mine, gives in zip(found, (p, a), strict=True):
        for sample in range(2):
            expected = by_hand(
                parameters, "to_qkv", "to_out", p[sample].numpy(), gives[sample].numpy(), HEADS, bias[0].numpy()
            )
            np.testing.assert_allclose(mine[sample].detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", TIMM.values(), ids=TIMM)
@pytest.mark.parametrize("head", [16, 64])
def test_timms_principal_displacement_is_its_own_to_the_bit(options: dict[str, object], head: int) -> None:
    layer = TimmLayer(2 * head, 2, **options).eval()
    p, a = torch.randn(2, 2, 17, 2 * head)
    assert torch.equal(untangled_attention(TimmAttention(layer), p, a)[0], layer(p))


def test_timms_principal_displacement_is_its_own_to_rounding_for_heads_of_any_width() -> None:
    layer = TimmLayer(WIDTH, HEADS, qkv_bias=True).eval()
    p, a = streams(torch.float32)
    torch.testing.assert_close(untangled_attention(TimmAttention(layer), p, a)[0], layer(p), rtol=1e-5, atol=1e-6)


def test_timms_principal_displacement_is_its_own_under_a_mask(randomised) -> None:
    layer = randomised(TimmLayer(WIDTH, HEADS).eval())
    p, a = streams()
    mask = torch.randn(TOKENS, TOKENS, dtype=torch.float64)
    mine = untangled_attention(TimmAttention(layer), p, a, mask)[0]
    torch.testing.assert_close(mine, layer(p, attn_mask=mask), rtol=1e-12, atol=1e-12)


def test_cromas_principal_displacement_is_its_own() -> None:
    layer = CromaLayer(WIDTH, HEADS).eval()
    p, a = streams(torch.float32)
    bias = -torch.rand(1, HEADS, TOKENS, TOKENS) * 3
    mine = untangled_attention(CromaAttention(layer), layer.input_norm(p), a, bias)[0]
    torch.testing.assert_close(mine, layer(p, bias), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "wrapped", [TimmAttention(TimmLayer(WIDTH, HEADS, qkv_bias=True)), CromaAttention(CromaLayer(WIDTH, HEADS))]
)
def test_the_values_of_a_stream_are_the_values_that_its_projection_has(wrapped: TimmAttention | CromaAttention) -> None:
    _, a = streams(torch.float32)
    torch.testing.assert_close(wrapped.values(a), wrapped.project(a)[2])


def test_two_equal_streams_are_carried_alike() -> None:
    layer = TimmLayer(WIDTH, HEADS, qkv_bias=True).double().eval()
    p, _ = streams()
    one, two = untangled_attention(TimmAttention(layer), p, p.clone())
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_the_auxiliary_stream_has_no_say_in_the_map() -> None:
    layer = TimmLayer(WIDTH, HEADS).double().eval()
    p, a = streams()
    b = torch.randn_like(a)
    wrapped = TimmAttention(layer)

    def carried(x: torch.Tensor) -> torch.Tensor:
        return untangled_attention(wrapped, p, x)[1]

    torch.testing.assert_close(carried(a) + carried(b), carried(a + b) + carried(torch.zeros_like(a)))  # it is linear


@pytest.mark.parametrize("biased", [False, True])
def test_one_map_is_applied_to_both_values(biased: bool) -> None:
    q, k, one, two = torch.randn(4, 2, HEADS, TOKENS, 5, dtype=torch.float64)
    bias = torch.randn(1, HEADS, TOKENS, TOKENS, dtype=torch.float64) if biased else None
    scale = float(torch.rand(())) + 0.1
    found = carry(q, k, one, two, scale, bias)
    scores = np.einsum("bhid,bhjd->bhij", q.numpy(), k.numpy()) * scale
    share = softmax(scores if bias is None else scores + bias.numpy(), axis=-1)
    for mine, values in zip(found, (one, two), strict=True):
        np.testing.assert_allclose(mine.numpy(), share @ values.numpy(), rtol=1e-9, atol=1e-9)


def test_the_slopes_of_both_streams_are_the_finite_differences() -> None:
    given = tuple(torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(4))
    assert torch.autograd.gradcheck(lambda *x: carry(*x, scale=0.7), given)
