"""A classifier that trains beside DEFLECT, as peft's modules_to_save: trained, saved, loaded and taken away again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import deflect
from satdifuser.bank import BankError
from satdifuser.data.bands import SENTINEL2
from satdifuser.errors import UserError

RGB, SPECTRA = torch.rand(2, 3, 32, 32), torch.rand(2, 13, 32, 32)


def vit(classes: int = 5) -> Any:
    tiny = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=classes, **tiny)


def config(*names: str) -> deflect.DeflectConfig:
    return deflect.DeflectConfig(bands=tuple(SENTINEL2), modules_to_save=names or None)  # type: ignore[arg-type]


def test_the_head_trains_as_in_peft_and_the_rest_stays(capsys: pytest.CaptureFixture[str]) -> None:
    model = vit()
    adapted = deflect.adapt(model, config("head"))
    before = {name: p.detach().clone() for name, p in adapted.named_parameters()}
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0)
    nn.functional.cross_entropy(adapted(RGB, spectra=SPECTRA), torch.tensor([1, 4])).backward()
    optimizer.step()
    moved = {name for name, p in adapted.named_parameters() if not torch.equal(p, before[name])}
    assert {"base_model.head.weight", "base_model.head.bias"} <= moved <= set(adapted.adapter_parameters())
    head = sum(p.numel() for p in vit().head.parameters())
    told = adapted.what_trains()
    assert told["head"] == head
    assert sum(told.values()) == adapted.get_nb_trainable_parameters()[0]
    assert set(told) == {"upe", "blocks.*.deflection", "head"}
    adapted.print_trainable_parameters()
    assert f"  head: {head:,}\n" in capsys.readouterr().out


def test_without_the_setting_everything_of_the_model_is_frozen() -> None:
    adapted = deflect.adapt(vit(), config())
    assert set(adapted.what_trains()) == {"upe", "blocks.*.deflection"}


def test_removing_the_adapter_gives_the_model_as_it_was() -> None:
    model = vit()
    model.head.weight.requires_grad_(False)
    before, flags = copy.deepcopy(model.state_dict()), {n: p.requires_grad for n, p in model.named_parameters()}
    adapted = deflect.adapt(model, config("head", "norm1"))
    with torch.no_grad():
        for parameter in adapted.adapter_parameters().values():
            parameter.add_(1.0)
    assert adapted.remove() is model
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert flags == {name: p.requires_grad for name, p in model.named_parameters()}


def test_what_is_saved_has_the_head_and_its_buffers_and_loads_as_it_was(tmp_path: Path) -> None:
    def made() -> Any:
        torch.manual_seed(3)
        model = vit()
        model.head = nn.Sequential(nn.BatchNorm1d(32), nn.Linear(32, 5))
        return model

    adapted = deflect.adapt(made(), config("head")).train()
    with torch.no_grad():
        for parameter in adapted.adapter_parameters().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
        adapted(RGB, spectra=SPECTRA)  # moves the running statistics
    adapted.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == ["head"]
    again = deflect.DeflectModel.from_pretrained(made(), tmp_path).eval()
    assert again.config == adapted.config
    torch.testing.assert_close(again(RGB, spectra=SPECTRA), adapted.eval()(RGB, spectra=SPECTRA), rtol=0, atol=0)


def test_a_name_that_is_not_there_is_told_and_the_model_stays() -> None:
    model = vit()
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(BankError, match="no module 'haed'; did you mean head"):
        deflect.adapt(model, config("haed"))
    with pytest.raises(BankError, match="head of VisionTransformer has no parameters"):
        deflect.adapt(vit(classes=0), config("head"))
    with pytest.raises(UserError, match="modules_to_save is 'head': it must be a list"):
        deflect.DeflectConfig(bands=tuple(SENTINEL2), modules_to_save="head")  # type: ignore[arg-type]
    assert names == [name for name, _ in model.named_modules()]
    assert all(parameter.requires_grad for parameter in model.parameters())
