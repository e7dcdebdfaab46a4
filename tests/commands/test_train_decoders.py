"""Every decoder through the commands, from a store, for pixels and for images; levels of a ViT."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from satdifuser.cli import main
from satdifuser.commands import eval as evaluation
from satdifuser.commands import extract, train
from satdifuser.config import compose, config_root
from satdifuser.errors import UserError

pytestmark = pytest.mark.slow

ENCODER = ["encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21, 161]"]
SHORT = ["trainer.max_steps=2", "trainer.eval_every=2"]
NAMES = ("conv", "dpt", "fpn", "light", "linear", "single", "unet", "upernet")
NARROW = {"fpn": ["decoder.segmentation_channels=32"]}
VIT = "+encoder.backbone.options={embed_dim: 32, depth: 4, num_heads: 2}"


def words_of(decoder: str) -> list[str]:
    width = [] if decoder == "linear" else ["decoder.channels=16"]
    return [f"decoder={decoder}", *width, *NARROW.get(decoder, [])]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    lengths = [f"data.splits.{split}.length={count}" for split, count in (("train", 8), ("val", 5), ("test", 7))]
    path = str(tmp_path_factory.mktemp("decoders") / "f.zarr")
    extract.run(compose("extract", ["data.size=16", *lengths, *ENCODER, f"store.path={path}"]))
    return path


@pytest.mark.parametrize("task", ["segmentation", "classification"])
@pytest.mark.parametrize("decoder", NAMES)
def test_every_decoder_trains_from_a_store_and_eval_finds_its_scores(
    tmp_path: Path, tiny: list[str], store: str, decoder: str, task: str
) -> None:
    run = tmp_path / "run"
    words = [*tiny, *SHORT, *ENCODER, f"features={store}", f"task={task}", *words_of(decoder), f"run={run}"]
    if decoder == "upernet" and task == "classification":
        with pytest.raises(UserError, match="decoder=upernet gives a map"):
            train.run(compose("train", words), quiet=True)
        return
    result: dict[str, Any] = train.run(compose("train", words), quiet=True)
    assert result["steps"] == 2
    again = evaluation.run(compose("eval", [f"run={run}"]))
    assert again["test"] == pytest.approx(result["test"], rel=1e-6)


def test_a_grid_over_all_decoders_is_compared(tmp_path: Path) -> None:
    assert {path.stem for path in (config_root() / "decoder").glob("*.yaml")} >= set(NAMES)
    lengths = [f"data.splits.{split}.length={count}" for split, count in (("train", 12), ("val", 4), ("test", 6))]
    recipe = ["data.size=16", *lengths, "trainer=quick", "trainer.max_steps=2", "trainer.batch_size=4"]
    models = {name: ["encoder=small", *ENCODER, "fusion.projection_dim=16", *words_of(name)] for name in NAMES}
    settings = {"models": models, "tasks": {"pixels": ["task=segmentation"]}, "recipe": recipe, "seeds": [0]}
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "all.yaml").write_text(
        "# @package _global_\n" + json.dumps({"budgets": [100], **settings})
    )
    output = tmp_path / "out"
    words = ["--config-dir", str(tmp_path), "experiment=all", f"output={output}", "resamples=200", "shown=2"]
    assert main(["compare", *words]) == 0
    assert {json.loads(path.read_text())["steps"] for path in output.glob("**/result.json")} == {2}
    assert len(list(output.glob("**/result.json"))) == len(NAMES)
    report = (output / "report.html").read_text()
    assert all(name in report for name in NAMES)


@pytest.mark.parametrize("decoder", ["dpt", "light", "upernet"])
def test_the_blocks_of_a_vit_become_levels_of_a_decoder(tmp_path: Path, tiny: list[str], decoder: str) -> None:
    vit = ["encoder=vit", "encoder.backbone.patch_size=4", VIT, "encoder.blocks=all", "fusion=levels"]
    run = tmp_path / "run"
    result = train.run(compose("train", [*tiny, *SHORT, *vit, *words_of(decoder), f"run={run}"]), quiet=True)
    assert evaluation.run(compose("eval", [f"run={run}"]))["test"] == pytest.approx(result["test"], rel=1e-6)


def test_a_single_level_trains_in_two_processes_as_in_one(
    tmp_path: Path, tiny: list[str], store: str, agrees_with_two_processes: Callable[..., None]
) -> None:
    common = [*tiny, *ENCODER, f"features={store}", "fusion=mean", *words_of("single"), "decoder.dropout=0"]
    one = train.run(compose("train", [*common, f"run={tmp_path / 'one'}"]), quiet=True)
    agrees_with_two_processes(common, one)
