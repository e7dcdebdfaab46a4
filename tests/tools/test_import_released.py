"""Checkpoints of the released code, made here by stand-ins for it: the same answers, or one line that says why not."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from satdifuser.bank import BankSpec
from satdifuser.build import build_data, build_model
from satdifuser.commands import eval as evaluation
from satdifuser.commands import train
from satdifuser.config import compose
from satdifuser.data.batches import OrderedBatches, loader
from satdifuser.decoders import LinearDecoder, UPerNet
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.predictions import Predictions
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.fusion import Concatenated, GlobalWeighted, LocalizedWeighted, MixtureOfExperts, UniformMean
from satdifuser.released import from_released, read_released

ATTENTION = "up_blocks.{}.attentions.{}.transformer_blocks.0.attn1"
TAPS = (  # as computed
    ("up_blocks.0.resnets.0.conv2", 12, 8),
    ("up_blocks.0.resnets.1.conv2", 14, 8),
    ("up_blocks.1.resnets.0.conv2", 10, 4),
    (ATTENTION.format(1, 0), 10, 4),
    ("up_blocks.1.resnets.1.conv2", 10, 4),
    (ATTENTION.format(1, 1), 10, 4),
    ("up_blocks.2.resnets.0.conv2", 6, 2),
    (ATTENTION.format(2, 0), 6, 2),
)
ORDER = [  # as released
    [ATTENTION.format(2, 0), "up_blocks.2.resnets.0.conv2"],
    [
        *(ATTENTION.format(1, 0), ATTENTION.format(1, 1)),
        *("up_blocks.1.resnets.0.conv2", "up_blocks.1.resnets.1.conv2"),
    ],
    ["up_blocks.0.resnets.0.conv2", "up_blocks.0.resnets.1.conv2"],
]
WIDTHS = [[6, 6], [10, 10, 10, 10], [12, 14]]
WIDTH = 256  # the narrowest at which all norms have 32 groups, as released
SIZE = (16, 24)


@pytest.fixture(scope="module")
def theirs() -> Any:
    path = Path(__file__).resolve().parents[1] / "fusion" / "released_code.py"
    spec = importlib.util.spec_from_file_location("released_code", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def released(path: Path, module: torch.nn.Module, prefix: str = "", **more: Any) -> Path:
    """A checkpoint as the released code writes it."""
    state = {prefix + name: value for name, value in module.state_dict().items()}
    config = OmegaConf.create({"task": {"name": "m-eurosat"}, "optim": {"lr": 1e-2, "betas": [0.9, 0.99]}})
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    content = {"epoch": 7, "global_step": 1234, "config": config, "decoder_net": state, "lr_scheduler": {"last": 3}}
    torch.save({**content, "optimizer_state_dict": optimizer.state_dict(), **more}, path)
    return path


HEADS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "gw": (lambda theirs: theirs.GW(WIDTHS, 3, WIDTH), lambda spec: GlobalWeighted(spec, WIDTH)),
    "lw": (lambda theirs: theirs.LW(WIDTHS, 3, WIDTH), lambda spec: LocalizedWeighted(spec, WIDTH, released=True)),
    "lw mended": (
        lambda theirs: theirs.LW(WIDTHS, 3, WIDTH, advanced=True),
        lambda spec: LocalizedWeighted(spec, WIDTH),
    ),
    "moe": (
        lambda theirs: theirs.MoE(WIDTHS, 3, WIDTH, top_k=2, warmup=0),
        lambda spec: MixtureOfExperts(spec, WIDTH, experts=4, top_k=2, warmup_steps=7),
    ),
    "moe released": (
        lambda theirs: theirs.MoE(WIDTHS, 3, WIDTH, top_k=1, warmup=0),
        lambda spec: MixtureOfExperts(spec, WIDTH, experts=4, top_k=1, warmup_steps=7, released=True),
    ),
}


@pytest.fixture
def spec(toy_spec: Callable[..., BankSpec]) -> BankSpec:
    return toy_spec(taps=TAPS)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("head", list(HEADS))
@torch.no_grad()
def test_a_head_with_the_linear_classifier_answers_as_it_did(
    tmp_path: Path, spec: BankSpec, toy_bank: Any, theirs: Any, head: str, prefix: str
) -> None:
    make, ours = HEADS[head]
    standin, answer = theirs.with_classifier(make(theirs), 5)
    path = released(tmp_path / "best.pth", theirs.randomised(standin), prefix)
    fusion = ours(spec)
    decoder = LinearDecoder(fusion.pyramid, 5, dense=False)
    assert_loaded(path, fusion.double(), decoder.double())
    bank = toy_bank(spec)
    expected = answer(theirs.listed(bank, ORDER))
    np.testing.assert_allclose(decoder(fusion(bank).maps), expected, rtol=1e-10, atol=1e-10)
    assert float(expected.std()) > 0.01


@pytest.mark.parametrize("head", list(HEADS))
@torch.no_grad()
def test_a_head_with_upernet_answers_as_it_did(
    tmp_path: Path, spec: BankSpec, toy_bank: Any, theirs: Any, head: str
) -> None:
    make, ours = HEADS[head]
    standin, answer = theirs.with_upernet(make(theirs), 4, channels=8)
    path = released(tmp_path / "best.pth", theirs.randomised(standin))
    fusion = ours(spec)
    decoder = UPerNet(fusion.pyramid, 4, dense=True, channels=8, pool_scales=(1, 2, 3), norm="batch")
    assert_loaded(path, fusion.double(), decoder.double().eval())
    bank = toy_bank(spec)
    expected = answer(theirs.listed(bank, ORDER), SIZE)
    np.testing.assert_allclose(decoder(fusion(bank).maps, SIZE), expected, rtol=1e-10, atol=1e-10)
    assert float(expected.std()) > 0.01


def assert_loaded(path: Path, fusion: torch.nn.Module, decoder: torch.nn.Module) -> None:
    state = from_released(read_released(path), fusion, decoder, "best.pth")  # type: ignore[arg-type]
    for part, module in (("fusion.", fusion), ("decoder.", decoder)):
        mine = {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
        assert {n: v.dtype for n, v in mine.items()} == {n: v.dtype for n, v in module.state_dict().items()}
        module.load_state_dict(mine)


@torch.no_grad()
def test_timesteps_in_another_order_of_ours_find_their_weights(
    tmp_path: Path, toy_spec: Any, toy_bank: Any, theirs: Any
) -> None:
    for head in ("gw", "lw mended"):
        make, ours = HEADS[head]
        standin, answer = theirs.with_classifier(make(theirs), 5)
        path = released(tmp_path / "best.pth", theirs.randomised(standin))
        bank = toy_bank(toy_spec((97, 21, 61), TAPS))
        fusion = ours(bank.spec).double()
        decoder = LinearDecoder(fusion.pyramid, 5, dense=False).double()
        assert_loaded(path, fusion, decoder)
        sorted_bank = type(bank)(toy_spec((21, 61, 97), TAPS), dict(bank))
        expected = answer(theirs.listed(sorted_bank, ORDER))
        np.testing.assert_allclose(decoder(fusion(bank).maps), expected, rtol=1e-10, atol=1e-10)


# --- faults


def gw_state(theirs: Any) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = theirs.with_classifier(theirs.GW(WIDTHS, 3, WIDTH), 5)[0].state_dict()
    return state


def moe_state(theirs: Any) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = theirs.with_classifier(theirs.MoE(WIDTHS, 3, WIDTH), 5)[0].state_dict()
    return state


def refused(state: dict[str, torch.Tensor], fusion: Any, decoder: Any, match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        from_released(state, fusion, decoder, "best.pth")
    assert "\n" not in str(error.value)


def classifier(fusion: Any, dense: bool = False) -> LinearDecoder:
    return LinearDecoder(fusion.pyramid, 5, dense)


def test_weights_that_are_missing_unknown_or_of_another_shape_are_named(spec: BankSpec, theirs: Any) -> None:
    fusion, state = GlobalWeighted(spec, WIDTH), gw_state(theirs)
    missing = {name: value for name, value in state.items() if name != "bottleneck_layers.3.0.conv2.norm.bias"}
    refused(missing, fusion, classifier(fusion), r"best\.pth is .* \(1 weights\): bottleneck_layers\.3\.0.* is missing")
    refused({**state, "extra.weight": torch.ones(1)}, fusion, classifier(fusion), r"extra\.weight is unknown")
    refused(
        {**state, "mixing_weights": torch.ones(23)}, fusion, classifier(fusion), r"mixing_weights is \(23,\) .* \(24,\)"
    )
    other = LinearDecoder(fusion.pyramid, 6, dense=False)
    refused(state, fusion, other, r"decoder_head\.2\.weight is \(5, 256\) instead of \(6, 256\)")
    fewer = GlobalWeighted(spec.select(timesteps=[21, 61]), WIDTH)
    refused(state, fewer, classifier(fewer), r"mixing_weights is \(24,\) instead of \(16,\)")
    narrow = GlobalWeighted(spec, 512)
    refused(state, narrow, classifier(narrow), r"weights\): .* instead of .*; and \d+ more$")


def test_other_taps_are_refused(spec: BankSpec, toy_spec: Any, theirs: Any) -> None:
    some = GlobalWeighted(spec.select(names=spec.names()[:-1]), WIDTH)
    refused(gw_state(theirs), some, classifier(some), r"bottleneck_layers\.7.* is unknown")
    other = GlobalWeighted(toy_spec(), WIDTH)
    refused(gw_state(theirs), other, classifier(other), r"reads no tap mid: set encoder\.taps=satdifuser")


def test_another_head_is_refused(spec: BankSpec, theirs: Any) -> None:
    local = LocalizedWeighted(spec, WIDTH)
    refused(gw_state(theirs), local, classifier(local), r"gate_modules\.0\.gate_conv\.bias is missing")
    for head, name in ((UniformMean(spec, WIDTH), "UniformMean"), (Concatenated(spec, WIDTH), "Concatenated")):
        refused(gw_state(theirs), head, classifier(head), rf"no head as {name}: set fusion to gw, lw or moe")
    more = MixtureOfExperts(spec, WIDTH, experts=5)
    refused(moe_state(theirs), more, classifier(more), r"scale_moes\.0\.experts\.4\.0\.conv1\.norm\.bias is missing")


def test_other_norms_are_refused(spec: BankSpec, theirs: Any) -> None:
    batch = GlobalWeighted(spec, WIDTH, norm="batch")
    refused(gw_state(theirs), batch, classifier(batch), r"set fusion\.norm=group")
    narrow = GlobalWeighted(spec, 64)
    refused(gw_state(theirs), narrow, classifier(narrow), r"32 groups in each GroupNorm, .*projection_dim=64 ours have")
    fusion = GlobalWeighted(spec, WIDTH)
    group = UPerNet(fusion.pyramid, 5, dense=True, channels=8)
    refused(gw_state(theirs), fusion, group, r"UPerNet has BatchNorm: set decoder\.norm=batch")
    refused(gw_state(theirs), fusion, classifier(fusion, dense=True), r"no linear decoder of pixels")


def test_a_bottleneck_without_a_shortcut_is_refused(toy_spec: Any, theirs: Any) -> None:
    spec = toy_spec(taps=[("up_blocks.0.resnets.0.conv2", WIDTH, 8)])
    fusion = GlobalWeighted(spec, WIDTH)
    state = theirs.with_classifier(theirs.GW([[WIDTH]], 3, WIDTH), 5)[0].state_dict()
    assert not any("shortcut" in name for name in state)
    refused(state, fusion, classifier(fusion), r"best\.pth: bottleneck_layers\.0\.0 has no shortcut")


def test_a_temperature_must_be_positive(spec: BankSpec, theirs: Any) -> None:
    fusion = MixtureOfExperts(spec, WIDTH, experts=4)
    state = {**moe_state(theirs), "scale_moes.1.temperature": torch.tensor(-0.5)}
    refused(state, fusion, classifier(fusion), r"scale_moes\.1\.temperature is -0\.5, .* above zero")


def test_a_file_without_a_decoder_net_is_no_checkpoint_of_the_released_code(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth has no decoder_net: it is no checkpoint of the released"):
        read_released(tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"no file .*gone\.pth"):
        read_released(tmp_path / "gone.pth")


# --- the script

RUN = [
    *("encoder=diffusionsat", "encoder.backbone.weights=random", "encoder.backbone.architecture=tiny"),
    *("encoder.image_size=64", "encoder.timesteps=[21, 61]", "data.size=16", "trainer=quick"),
    *("data.splits.train.length=8", "data.splits.val.length=5", "data.splits.test.length=7"),
    *(f"fusion.projection_dim={WIDTH}", "task=classification", "decoder=linear", "trainer.batch_size=4"),
]


@pytest.fixture
def small(theirs: Any) -> Any:
    """A model of the smallest encoder with the released taps, these as released, and their widths."""
    settings = compose("train", [*RUN, "run=unused"])
    model = build_model(settings, build_data(settings.data, "train"))
    spec = model.fusion.spec
    order = [
        [name for kind in ("attn1", "conv2") for name in spec.names(stride) if name.endswith(kind)]
        for stride in spec.strides
    ]
    return model, order, [[spec.channels(name) for name in names] for names in order]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["gw", "lw", "moe"])
def test_the_script_writes_a_run_that_eval_scores_alike(
    tmp_path: Path, theirs: Any, small: Any, tool: Callable[[str], ModuleType], head: str, capsys: Any
) -> None:
    model, order, widths = small
    standin = {"gw": theirs.GW, "lw": theirs.LW, "moe": theirs.MoE}[head](widths, 2, WIDTH)
    if head == "moe":
        standin.warmup = 0
    standin, answer = theirs.with_classifier(standin, model.task.outputs)
    path = released(tmp_path / "best.pth", theirs.randomised(standin))
    more = [f"fusion={head}", *(["fusion.released=true"] if head != "gw" else [])]
    more += ["fusion.experts=4"] if head == "moe" else []
    words = [str(path), *RUN, *more, f"run={tmp_path / 'run'}"]
    assert tool("import_released").main(words) == 0, capsys.readouterr().err
    folder = RunFolder(tmp_path / "run")
    result = json.loads(folder.result.read_text())
    assert result["samples"] == 7
    assert result["imported"]["file"] == "best.pth"
    assert len(folder.seen()) == 8
    assert load_checkpoint(folder.best)[0].best == result["validation"]
    assert folder.last.is_file()

    batch = next(iter(loader(build_data(compose("train", words[1:]).data, "test"), OrderedBatches(7, 7))))
    with torch.no_grad():
        expected = answer(theirs.listed(model.bank(batch).to(torch.float64), order))
    found = Predictions.load(folder.predictions("test"))
    np.testing.assert_allclose(found.logits, expected, rtol=1e-3, atol=1e-4)  # in float32, as features are
    scored = evaluation.run(compose("eval", [f"run={folder.path}"]))
    assert scored["test"] == result["test"]
    assert scored["weights"] == result["weights"]
    with pytest.raises(UserError, match=r"holds a run"):
        tool("import_released").import_run(path, compose("train", words[1:]))
    on = train.run(compose("train", [*RUN, *more, f"init={folder.path}", f"run={tmp_path / 'on'}"]), quiet=True)
    assert on["samples"] == 7


def test_the_script_says_in_one_line_what_does_not_fit(
    tmp_path: Path, theirs: Any, small: Any, tool: Callable[[str], ModuleType], capsys: Any
) -> None:
    model, _, widths = small
    standin, _ = theirs.with_classifier(theirs.GW(widths, 3, WIDTH), model.task.outputs)
    path = released(tmp_path / "best.pth", standin)
    assert tool("import_released").main([str(path), *RUN, "fusion=gw", f"run={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("import_released: ")
    assert "mixing_weights is (" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    words = [str(path), *RUN, "fusion=gw", f"run={tmp_path / 'run'}", "resume=true"]
    assert tool("import_released").main(words) == 2
    assert "leave resume and init out" in capsys.readouterr().err
