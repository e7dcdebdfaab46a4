from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from satdifuser.errors import UserError
from satdifuser.fusion import MixtureOfExperts

STEPS, NAMES = (21, 61, 97), {8: ("mid", "up.1"), 4: ("up.0",)}


def inputs_of(bank, stride, sample):
    """The concatenated taps of each timestep for one sample."""
    return [np.concatenate([bank.map(n, t)[sample].numpy() for n in NAMES[stride]]) for t in STEPS]


def slow_gate(slow, gate, x, top_k):
    """Shares of the experts for one input; all of them if `top_k` is None."""
    p = slow.parameters(gate)
    scores = slow.conv(x, p["score.weight"], p["score.bias"])
    logits = scores.mean((1, 2)) / np.exp(p["log_temperature"])
    if top_k is None:
        return softmax(logits)
    share = np.zeros_like(logits)
    chosen = sorted(range(len(logits)), key=lambda e: -logits[e])[:top_k]
    share[chosen] = softmax(logits[chosen])
    return share


def warmed(head):
    for _ in range(head.warmup_steps):
        head.step_done()
    return head


def skew(head, expert=0, by=4.0):
    """Let the gates of every stride prefer one expert by far."""
    with torch.no_grad():
        for gate in head.gates.values():
            gate.score.bias.zero_()
            gate.score.bias[expert] = by
    return head


def descend(module, loss, rate):
    """One step of plain gradient descent."""
    module.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter -= rate * parameter.grad


# --- the mixture


@pytest.mark.parametrize(("top_k", "projection_dim"), [(None, 16), (None, 128), (1, 16), (2, 16), (4, 16)])
def test_moe_is_the_mean_over_timesteps_of_gated_experts_on_concatenated_taps(
    toy_spec, toy_bank, randomised, slow, close, top_k, projection_dim
):
    spec = toy_spec()
    bank = toy_bank(spec, batch=2)
    head = randomised(MixtureOfExperts(spec, projection_dim, experts=4, top_k=top_k or 2, warmup_steps=3))
    if top_k:
        warmed(head)
    fused = head(bank)
    for stride in NAMES:
        usage = np.zeros((3, 4))
        for sample in range(2):
            expected = np.zeros((projection_dim, 16 // stride, 24 // stride))
            for t, x in enumerate(inputs_of(bank, stride, sample)):
                share = slow_gate(slow, head.gates[str(stride)], x, top_k)
                usage[t] += share / 2
                for expert, part in zip(head.experts[str(stride)], share, strict=True):
                    expected += part * slow.bottleneck(expert, x) / len(STEPS)
            close(fused.maps[stride][sample], expected)
        close(fused.details["gate_usage"][stride], usage)


@pytest.mark.parametrize("top_k", [1, 2])
def test_moe_once_warm_computes_each_expert_only_on_the_maps_that_chose_it(toy_spec, toy_bank, randomised, slow, top_k):
    spec = toy_spec()
    bank = toy_bank(spec, batch=3)
    head = warmed(randomised(MixtureOfExperts(spec, 16, experts=4, top_k=top_k, warmup_steps=1)))
    seen = {(stride, e): 0 for stride in NAMES for e in range(4)}
    for stride, e in seen:

        def count(module, args, output, at=(stride, e)):
            seen[at] += len(args[0])

        head.experts[str(stride)][e].register_forward_hook(count)
    head(bank)
    expected = dict.fromkeys(seen, 0)
    for stride in NAMES:
        for sample in range(3):
            for x in inputs_of(bank, stride, sample):
                for e in np.flatnonzero(slow_gate(slow, head.gates[str(stride)], x, top_k)):
                    expected[stride, int(e)] += 1
    assert seen == expected
    assert sum(seen.values()) == 2 * 3 * 3 * top_k


def test_moe_temperature_flattens_the_gate(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    bank = toy_bank(spec, batch=1)
    head = randomised(MixtureOfExperts(spec, 8, experts=4))
    spread = []
    for log_temperature in (-1.0, 0.0, 6.0):
        for gate in head.gates.values():
            torch.nn.init.constant_(gate.log_temperature, log_temperature)
        spread.append([float(entropy(row)) for row in head(bank).details["gate_usage"][8].numpy()])
    assert all(a < b < c for a, b, c in zip(*spread, strict=True))
    assert spread[-1] == pytest.approx([np.log(4)] * 3, abs=1e-3)


def test_moe_weights_are_the_share_of_gate_usage_times_weight_norm_times_size_of_the_map(
    toy_spec, toy_bank, randomised, slow, close
):
    spec = toy_spec()
    bank = toy_bank(spec, batch=2)
    head = randomised(MixtureOfExperts(spec, 16, experts=4))
    fused = head(bank)
    for stride, names in NAMES.items():
        expected = np.zeros((3, len(names)))
        for t, timestep in enumerate(STEPS):
            usage = np.mean(
                [slow_gate(slow, head.gates[str(stride)], inputs_of(bank, stride, i)[t], None) for i in range(2)],
                axis=0,
            )
            start = 0
            for n, name in enumerate(names):
                stop = start + spec.channels(name)
                for e, expert in enumerate(head.experts[str(stride)]):
                    p = slow.parameters(expert)
                    squares = sum((p[f"{w}.weight"][:, start:stop] ** 2).sum() for w in ("reduce", "shortcut"))
                    size = np.sqrt((bank.map(name, timestep).numpy() ** 2).mean())
                    expected[t, n] += usage[e] * np.sqrt(squares) * size
                start = stop
        np.testing.assert_allclose(fused.weights[stride].numpy(), expected / expected.sum(), rtol=1e-5)


def test_moe_weight_of_a_map_of_zeros_is_zero(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    bank = toy_bank(spec)
    empty = spec.find("up.1", 61)
    bank = type(bank)(spec, {tap: value * 0 if tap == empty else value for tap, value in bank.items()})
    weights = randomised(MixtureOfExperts(spec, 16, experts=4))(bank).weights[8]
    assert weights[1, 1] == 0
    assert int((weights > 0).sum()) == 5


def test_moe_on_a_bank_of_zeros_stays_finite(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    fused = randomised(MixtureOfExperts(spec, 16, experts=4))(toy_bank(spec).apply(torch.zeros_like))
    assert all(bool(value.isfinite().all()) for value in [*fused.maps.values(), *fused.weights.values()])


# --- the balance loss


def balance_by_hand(slow, head, bank, top_k):
    """Mean over strides of E * sum_e usage_e * probability_e - 1, times its factor."""
    values = []
    for stride in NAMES:
        gate = head.gates[str(stride)]
        inputs = [x for sample in range(bank.batch_size) for x in inputs_of(bank, stride, sample)]
        usage = np.mean([slow_gate(slow, gate, x, top_k) for x in inputs], axis=0)
        dense = np.mean([slow_gate(slow, gate, x, None) for x in inputs], axis=0)
        values.append(len(usage) * float(usage @ dense) - 1.0)
    return head.balance * np.mean(values)


@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_moe_balance_loss_is_usage_times_probability(toy_spec, toy_bank, randomised, slow, top_k):
    spec = toy_spec()
    bank = toy_bank(spec, batch=2)
    head = randomised(MixtureOfExperts(spec, 8, experts=4, top_k=top_k or 2, warmup_steps=1, balance=0.3))
    if top_k:
        warmed(head)
    assert head(bank).aux_loss.item() == pytest.approx(balance_by_hand(slow, head, bank, top_k), abs=1e-12)


def test_moe_balance_loss_is_zero_for_a_uniform_gate_and_largest_where_one_expert_takes_all(toy_spec, toy_bank):
    spec = toy_spec()
    bank = toy_bank(spec)
    head = MixtureOfExperts(spec, 8, experts=5, balance=1.0).double()
    for gate in head.gates.values():
        torch.nn.init.zeros_(gate.score.weight)
        torch.nn.init.zeros_(gate.score.bias)
    assert head(bank).aux_loss.item() == pytest.approx(0.0, abs=1e-12)
    assert skew(head, by=60.0)(bank).aux_loss.item() == pytest.approx(4.0)


def test_moe_balance_factor_scales_the_loss_and_zero_turns_it_off(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    bank = toy_bank(spec)
    head = skew(randomised(MixtureOfExperts(spec, 8, experts=4, balance=1.0)))
    whole = head(bank).aux_loss.item()
    head.balance = 0.25
    assert head(bank).aux_loss.item() == pytest.approx(whole / 4)
    head.balance = 0.0
    assert head(bank).aux_loss.item() == 0.0


@pytest.mark.parametrize(("warm", "top_k"), [(False, 2), (True, 2), (True, 1)])
def test_moe_training_on_the_balance_loss_alone_evens_out_a_skewed_gate(toy_spec, toy_bank, warm, top_k):
    spec = toy_spec()
    head = skew(MixtureOfExperts(spec, 8, experts=4, top_k=top_k, warmup_steps=1, balance=1.0).double())
    if warm:
        warmed(head)
    bank = toy_bank(spec, batch=12)

    def usage_entropy():
        with torch.no_grad():
            usage = head(bank).details["gate_usage"]
        return [float(entropy(value.mean(0).numpy())) / np.log(4) for value in usage.values()]

    before = usage_entropy()
    for _ in range(40):
        descend(head.gates, head(bank).aux_loss, 0.5)
    after = usage_entropy()
    assert all(b < 0.7 for b in before), before
    assert all(a > b + 0.2 for a, b in zip(after, before, strict=True)), (before, after)


@pytest.mark.parametrize("expert", [1, 2, 3])
def test_moe_expert_that_is_never_chosen_is_pulled_up_by_the_balance_loss(toy_spec, toy_bank, expert):
    spec = toy_spec()
    head = warmed(skew(MixtureOfExperts(spec, 8, experts=4, top_k=1, warmup_steps=1, balance=1.0).double(), by=9.0))
    fused = head(toy_bank(spec, batch=4))
    fused.aux_loss.backward()
    for stride, gate in head.gates.items():
        assert float(fused.details["gate_usage"][int(stride)][:, expert].sum()) == 0
        assert gate.score.bias.grad[expert] < 0  # a step down the gradient raises its score
        assert float(gate.score.weight.grad[expert].abs().sum()) > 0
        assert gate.score.bias.grad[0] > 0


@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_moe_balance_loss_holds_the_usage_constant(toy_spec, toy_bank, slow, top_k):
    spec = toy_spec()
    bank = toy_bank(spec, batch=2)
    warmup = 0 if top_k else 9
    head = MixtureOfExperts(spec, 8, experts=4, top_k=top_k or 2, warmup_steps=warmup, balance=1.0).double()
    head(bank).aux_loss.backward()
    for stride in NAMES:
        gate = head.gates[str(stride)]
        inputs = [x for sample in range(2) for x in inputs_of(bank, stride, sample)]
        usage = np.mean([slow_gate(slow, gate, x, top_k) for x in inputs], axis=0)
        slope = np.zeros(4)
        for x in inputs:  # of E * sum_e usage_e * p_e with p = softmax(logits), for the bias, by hand
            p = slow_gate(slow, gate, x, None)
            slope += 4 * p * (usage - usage @ p) / len(inputs)
        np.testing.assert_allclose(gate.score.bias.grad.numpy(), slope / len(NAMES), rtol=1e-9, atol=1e-12)


def test_moe_balance_loss_does_not_touch_the_experts(toy_spec, toy_bank):
    spec = toy_spec()
    head = MixtureOfExperts(spec, 8, experts=4).double()
    head(toy_bank(spec)).aux_loss.backward()
    assert all(p.grad is None for p in head.experts.parameters())
    assert all(bool(gate.score.weight.grad.any()) for gate in head.gates.values())


# --- warm-up


def test_moe_warm_up_ends_exactly_after_the_steps_asked_for(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    bank = toy_bank(spec, batch=1)
    head = randomised(MixtureOfExperts(spec, 8, experts=4, top_k=2, warmup_steps=3))
    used = []
    for _ in range(5):
        used.append({int((row > 0).sum()) for row in head(bank).details["gate_usage"][8]})
        head.step_done()
    assert used == [{4}, {4}, {4}, {2}, {2}]


def test_moe_without_warm_up_is_sparse_from_the_start(toy_spec, toy_bank, randomised):
    spec = toy_spec()
    usage = randomised(MixtureOfExperts(spec, 8, experts=4, top_k=1, warmup_steps=0))(toy_bank(spec, batch=1))
    assert all(bool(((u == 0) | (u == 1)).all()) for u in usage.details["gate_usage"].values())


@pytest.mark.parametrize("training", [True, False])
def test_moe_forward_never_advances_the_warm_up(toy_spec, toy_bank, training):
    spec = toy_spec()
    bank = toy_bank(spec)
    head = MixtureOfExperts(spec, 8, experts=4, warmup_steps=2).double().train(training)
    head.step_done()
    for _ in range(4):
        (head(bank).aux_loss + head(bank).maps[8].sum()).backward()
    assert int(head.steps) == 1
    assert not head.warm
    head.step_done()
    assert head.warm


def test_moe_warm_up_survives_a_state_dict(toy_spec, toy_bank, randomised, tmp_path):
    spec = toy_spec()
    bank = toy_bank(spec)
    head = warmed(randomised(MixtureOfExperts(spec, 8, experts=4, top_k=1, warmup_steps=5)))
    torch.save(head.state_dict(), tmp_path / "head.pt")
    again = MixtureOfExperts(spec, 8, experts=4, top_k=1, warmup_steps=5).double()
    assert not again.warm
    again.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    assert int(again.steps) == 5
    assert again.warm
    assert all(torch.equal(again(bank).maps[s], head(bank).maps[s]) for s in (4, 8))
    again.step_done()
    assert (int(again.steps), int(head.steps)) == (6, 5)


def test_moe_says_that_it_skips_parameters():
    assert MixtureOfExperts.sparse


def test_moe_once_warm_the_task_reaches_the_gate_and_the_chosen_experts_only(toy_spec, toy_bank):
    spec = toy_spec()
    head = MixtureOfExperts(spec, 8, experts=4, top_k=2, warmup_steps=0).double()
    with torch.no_grad():
        for gate in head.gates.values():
            gate.score.bias.copy_(torch.tensor([9.0, -9.0, 9.0, -9.0]))
    sum(value.square().sum() for value in head(toy_bank(spec)).maps.values()).backward()
    for stride in ("4", "8"):
        reached = [any(p.grad is not None and p.grad.any() for p in e.parameters()) for e in head.experts[stride]]
        assert reached == [True, False, True, False]
        assert [bool(g.any()) for g in head.gates[stride].score.weight.grad] == [True, False, True, False]


@pytest.mark.parametrize("top_k", [0, 5, -1])
def test_moe_refuses_a_top_k_outside_the_number_of_experts(toy_spec, top_k):
    with pytest.raises(UserError, match=rf"fusion\.top_k is {top_k}: .*(fusion\.experts \(4\)|1 or more)"):
        MixtureOfExperts(toy_spec(), 8, experts=4, top_k=top_k)
