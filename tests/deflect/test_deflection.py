"""The deflection adapter against its formula in slow float64, and the lengths that it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deflect.deflection import NORMS, Deflection
from satdifuser.errors import UserError


def random_deflection(
    norm: str, spread: float = 1.0, epsilon: float = 0.1, width: int = 12, rank: int = 3
) -> Deflection:
    made = Deflection(width, rank, norm, epsilon).double()
    with torch.no_grad():
        made.down.weight.normal_(std=spread)
        made.up.weight.normal_(std=spread)
    return made


def streams(width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """A displacement whose tokens are of very different lengths, and an auxiliary stream."""
    lengths = 10.0 ** torch.randint(-4, 4, (2, 5, 1), dtype=torch.float64)
    return torch.randn(2, 5, width, dtype=torch.float64) * lengths, torch.randn(2, 5, width, dtype=torch.float64)


def slow_update(made: Deflection, auxiliary: np.ndarray) -> np.ndarray:
    """U act(D x) of one token."""
    hidden = made.down.weight.detach().numpy() @ auxiliary
    hidden = np.array([0.5 * h * (1 + math.erf(h / math.sqrt(2))) for h in hidden])
    return made.up.weight.detach().numpy() @ hidden


@pytest.mark.parametrize("norm", NORMS)
def test_a_displacement_is_turned_as_the_formula_says(norm: str) -> None:
    made = random_deflection(norm, epsilon=0.3)
    displacement, auxiliary = streams()
    turned = made(displacement, auxiliary).detach().numpy()
    for sample in range(2):
        for token in range(5):
            delta = displacement[sample, token].numpy()
            g = slow_update(made, auxiliary[sample, token].numpy())
            length = np.linalg.norm(delta)
            expected = {
                "none": delta + g,
                "bound": delta + g * min(1.0, 0.3 * length / np.linalg.norm(g)),
                "preserve": (delta + g) * length / np.linalg.norm(delta + g),
            }[norm]
            np.testing.assert_allclose(turned[sample, token], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spread", [0.01, 1.0, 100.0])
def test_preserve_keeps_every_tokens_length(spread: float) -> None:
    displacement, auxiliary = streams()
    turned = random_deflection("preserve", spread)(displacement, auxiliary)
    torch.testing.assert_close(turned.norm(dim=-1), displacement.norm(dim=-1), rtol=1e-12, atol=0)
    assert not torch.allclose(turned, displacement)


@pytest.mark.parametrize("epsilon", [0.01, 0.5])
@pytest.mark.parametrize("spread", [0.01, 1.0, 100.0])
def test_bound_keeps_the_update_a_small_part_of_the_displacement(spread: float, epsilon: float) -> None:
    displacement, auxiliary = streams()
    turned = random_deflection("bound", spread, epsilon)(displacement, auxiliary).detach()
    part = (turned - displacement).norm(dim=-1) / displacement.norm(dim=-1)
    assert float(part.max()) <= epsilon * (1 + 1e-9)


def test_bound_leaves_a_small_update_as_it_is() -> None:
    made = random_deflection("bound", 0.001, epsilon=1.0)
    plain = random_deflection("none")
    plain.load_state_dict(made.state_dict())
    displacement, auxiliary = torch.randn(2, 5, 12, dtype=torch.float64), torch.randn(2, 5, 12, dtype=torch.float64)
    assert torch.equal(made(displacement, auxiliary), plain(displacement, auxiliary))


@pytest.mark.parametrize("norm", ["preserve", "bound"])
def test_the_promise_holds_after_every_step_of_an_optimiser(norm: str) -> None:
    made = Deflection(12, 3, norm).double()
    optimiser = torch.optim.Adam(made.parameters(), lr=0.5)
    displacement, auxiliary = streams()
    target = torch.randn_like(displacement)
    for _ in range(8):
        turned = made(displacement, auxiliary)
        length = displacement.norm(dim=-1)
        if norm == "preserve":
            torch.testing.assert_close(turned.norm(dim=-1), length, rtol=1e-12, atol=0)
        else:
            assert bool(((turned - displacement).norm(dim=-1) <= 0.1 * length * (1 + 1e-9)).all())
        optimiser.zero_grad()
        (turned / length[..., None] - target).square().mean().backward()
        optimiser.step()
    assert float(made.up.weight.abs().min()) > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", NORMS)
def test_at_the_start_nothing_is_changed_to_the_bit(norm: str, dtype: torch.dtype) -> None:
    displacement, auxiliary = (x.to(dtype) for x in streams())
    displacement[0, 0] = 0
    assert torch.equal(Deflection(12, 3, norm).to(dtype)(displacement, auxiliary), displacement)


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_a_token_that_does_not_move_has_finite_values_and_slopes(norm: str, start: bool) -> None:
    made = (Deflection(12, 3, norm) if start else random_deflection(norm)).float()
    displacement = torch.zeros(1, 3, 12, requires_grad=True)
    auxiliary = torch.randn(1, 3, 12)
    auxiliary[0, 0] = 0
    auxiliary.requires_grad_()
    turned = made(displacement, auxiliary)
    turned.sum().backward()
    for value in (turned, displacement.grad, auxiliary.grad, made.down.weight.grad, made.up.weight.grad):
        assert bool(value.isfinite().all())
    if norm != "none":
        assert float(turned.detach().norm(dim=-1).max()) < 1e-9


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_are_the_finite_differences(norm: str) -> None:
    made = random_deflection(norm, width=5, rank=2)
    given = tuple(torch.randn(1, 2, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda d, a, *_: made(d, a), (*given, *made.parameters()))


def test_lengths_are_measured_in_single_precision_where_the_displacement_has_half() -> None:
    made = random_deflection("preserve").bfloat16()
    displacement = torch.randn(1, 4, 12).bfloat16()
    turned = made(displacement, torch.randn(1, 4, 12).bfloat16())
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned.float().norm(dim=-1), displacement.float().norm(dim=-1), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "keep"}, "norm is 'keep': it can be preserve, bound or none"),
        ({"rank": 0}, "rank is 0"),
        ({"epsilon": 0.0}, "epsilon is 0.0: it must be a number above 0"),
        ({"epsilon": -1.0}, "must be a number above 0"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
    ],
)
def test_bad_settings_are_errors(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Deflection(**{"width": 12, "rank": 3, **settings})  # type: ignore[arg-type]
