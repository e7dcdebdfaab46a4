"""`select`: depths by number, of live encoders and stores alike, and its place in configurations and run keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from satdifuser.bank import BankError, BankSpec, Tap
from satdifuser.build import build_model
from satdifuser.cli import main
from satdifuser.commands import extract, train
from satdifuser.compare.grid import expand
from satdifuser.config import compose
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.yaml_file import load_yaml

SIZE = ["data.size=16", "data.splits.train.length=8", "data.splits.val.length=5", "data.splits.test.length=7"]
QUICK = ["trainer=quick", "trainer.max_steps=4", "trainer.batch_size=4", "trainer.eval_every=2"]
SMALL = ["fusion.projection_dim=16", "encoder.timesteps=[21, 161]"]
TAPS = ["encoder.taps=[mid_block, up_blocks.0.resnets.1.conv2, up_blocks.1.resnets.1.conv2]"]
VIT = ["encoder=small_vit", "encoder.class_token=true", "fusion=gw", "fusion.projection_dim=16", "task=classification"]


def tokens() -> BankSpec:
    names = [("blocks.2", 4), ("blocks.2.class", 32), ("blocks.5", 4), ("blocks.5.class", 32), ("blocks.11", 4)]
    return BankSpec(tuple(Tap(n, None, d, 8, s) for d, (n, s) in enumerate(names)), "vit", "none", (32, 32))


def test_depths_are_numbers_of_taps_in_the_order_of_computation(toy_spec: Callable[..., BankSpec]) -> None:
    spec = toy_spec()
    assert spec.select(depths=[1]).names() == ("up.0",)
    assert spec.select(depths=[-1, 0]).names() == ("mid", "up.1")
    assert spec.select(depths=[2], timesteps=[61]).taps == (spec.find("up.1", 61),)


def test_a_class_token_belongs_to_its_blocks_depth() -> None:
    spec = tokens()
    assert spec.select(depths=[1]).names() == ("blocks.5", "blocks.5.class")
    assert spec.select(depths=[-1]).names() == ("blocks.11",)
    assert spec.select(depths=[0], names=["blocks.2.class"]).names() == ("blocks.2.class",)


def test_depths_that_are_not_there_say_which_are() -> None:
    with pytest.raises(BankError, match=r"no depth 3; .*0: blocks\.2 and blocks\.2\.class, 1: .*, 2: blocks\.11$"):
        tokens().select(depths=[3])
    with pytest.raises(BankError, match="no taps are left"):
        tokens().select(depths=[0], names=["blocks.11"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("select.depths=[7]", r"select: no depth 7; .* has 0: mid_block, 1: up_blocks\.0.*, 2: up_blocks\.1"),
        ("select.taps=[down]", r"select: no tap down; .*mid_block"),
        ("select.timesteps=[22]", r"select: no timestep 22; .*\[21, 161\]"),
    ],
)
def test_a_choice_that_a_live_encoder_does_not_give_says_what_there_is(words: str, says: str) -> None:
    settings = compose("train", [*SIZE, *SMALL, *TAPS, words])
    with pytest.raises(UserError, match=says):
        build_model(settings, settings.data.split("train"))


def test_a_head_on_a_live_encoder_gets_what_is_selected_and_trains_what_it_did_before() -> None:
    words = [*VIT, "data.size=64", "data.splits.train.length=2", "adapter=lora"]
    whole, some = (compose("train", [*words, *more]) for more in ([], ["select.depths=[0,-1]"]))
    models = [build_model(settings, settings.data.split("train")) for settings in (whole, some)]
    full, chosen = (model.fusion.spec for model in models)
    places = full.places()
    assert chosen.names() == (*places[0], *places[-1])
    assert chosen == full.select(names=chosen.names())
    trained = [{n: p.shape for n, p in m.encoder.named_parameters() if p.requires_grad} for m in models]  # type: ignore[union-attr]
    assert trained[0] == trained[1]
    assert not models[0].sparse
    assert models[1].sparse  # several processes must look for what gets no gradient
    batch = {"image": torch.rand(2, 13, 64, 64), "id": ["a", "b"]}
    banks = [model.eval().bank(batch) for model in models]
    for tap in chosen.taps:
        assert torch.equal(banks[0][tap], banks[1][tap])


def test_nothing_selected_changes_no_key_of_a_run_and_depths_do() -> None:
    config = compose("compare", [])
    base, null, deep = (
        expand(config, words)[0].settings() for words in ([], ["select.depths=null"], ["select.depths=[0]"])
    )
    assert base == null
    assert base["select"] == {"timesteps": None, "taps": None}
    assert deep["select"]["depths"] == [0]


def test_depths_make_models_of_a_grid() -> None:
    cells = expand(compose("compare", []), ["select.depths=[0],[3],[-1]", "encoder=small,small_vit"])
    assert len({(cell.model, str(cell.config.select.depths)) for cell in cells}) == len(cells) == 6


def rows(path: Path) -> list[dict[str, Any]]:
    return RunFolder(path).rows()


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["select.depths=[0,-1]", "select.timesteps=[161]", "select.taps=[mid_block]"])
def test_the_same_choice_of_stored_and_of_live_features_is_the_same_run(tmp_path: Path, choice: str) -> None:
    path = str(tmp_path / "f.zarr")
    encoder = [*TAPS, "encoder.timesteps=[21, 161]"]
    extract.run(compose("extract", [*SIZE, *encoder, f"store.path={path}", "store.dtype=float32"]))
    words = [*SIZE, *QUICK, *SMALL, *TAPS, choice]
    live = train.run(compose("train", [*words, f"run={tmp_path / 'live'}"]), quiet=True)
    late = train.run(compose("train", [*words, f"features={path}", f"run={tmp_path / 'late'}"]), quiet=True)
    assert RunFolder(tmp_path / "live").spec() == RunFolder(tmp_path / "late").spec()
    for a, b in zip(rows(tmp_path / "live"), rows(tmp_path / "late"), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    assert live["test"] == pytest.approx(late["test"], rel=1e-4, abs=1e-6)
    assert live["weights"].keys() == late["weights"].keys()
    before = live["test"]
    for more in ([], [f"features={path}"]):
        assert main(["eval", f"run={tmp_path / 'live'}", *more]) == 0
    resumed = train.run(compose("train", [*words, f"run={tmp_path / 'live'}", "resume=true"]), quiet=True)
    assert resumed["test"] == before


@pytest.mark.slow
def test_a_configuration_of_before_there_were_depths_still_resumes_and_evaluates(tmp_path: Path) -> None:
    words = [*SIZE, *QUICK, *SMALL, *TAPS, f"run={tmp_path / 'run'}"]
    first = train.run(compose("train", words), quiet=True)
    file = tmp_path / "run" / "config.yaml"
    values = load_yaml(file)
    assert values["select"].pop("depths", 0) is None
    assert values.pop("loss", None) is None
    import yaml

    file.write_text(yaml.safe_dump(values, sort_keys=False))
    assert main(["eval", f"run={tmp_path / 'run'}"]) == 0
    again = train.run(compose("train", [*words, "resume=true"]), quiet=True)
    assert again["test"] == first["test"]
