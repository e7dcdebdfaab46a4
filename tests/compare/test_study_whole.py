"""A comparison with its studies from the command line to the report; done once, gone on with, and told what failed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import satdifuser.study.cka
from satdifuser.compare.command import run
from satdifuser.errors import UserError
from satdifuser.study.saved import load

pytestmark = pytest.mark.slow

EXPERIMENT = """# @package _global_
title: Tiny
models:
  UNet gw: [encoder=small, "encoder.taps=[${taps}]", "encoder.timesteps=[21,161]", fusion=gw]
  ViT 2: [encoder=small_vit, "encoder.blocks=[2]", fusion=mean]
  ViT 5: [encoder=small_vit, "encoder.blocks=[5]", fusion=mean]
  tuned: [encoder=small_vit, adapter=full, fusion=mean]
taps: mid_block,up_blocks.1.resnets.1.conv2
tasks:
  images: [task=classification]
recipe: [data.size=16, data.splits.train.length=24, data.splits.val.length=8, data.splits.test.length=12,
  trainer=quick, trainer.max_steps=2, trainer.batch_size=4, trainer.eval_every=2]
resamples: 100
shown: 0
probe: {strengths: 2, probes: [logistic]}
cka: {batch: 6, samples: 12}
store: {dtype: float32}
"""


def _fails(settings: object) -> None:
    raise MemoryError("no room")


FOUND = [("UNet gw", "images"), ("ViT 2", "images"), ("ViT 5", "images")]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the experiment, and the comparison that was made of it."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "tiny.yaml").write_text(EXPERIMENT)
    again(folder)
    return folder


def again(folder: Path, *words: str) -> list[Path]:
    return run(["experiment=tiny", f"output={folder / 'out'}", *words], [str(folder)])


def files(folder: Path, name: str) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in (folder / "out").glob(f"*/*/{name}")}


def test_probes_and_likeness_stand_in_the_report_and_beside_it(done: Path) -> None:
    out = done / "out"
    text = (out / "report.html").read_text(encoding="ascii")
    for part in ("depth-probes", "depth-moved", "depth-likeness", "depth-decoders", "depth-weights"):
        assert f'<section id="{part}"' in text, part
        assert f'<a href="#{part}">' in text
    assert "Runs that failed" not in text
    probes = [load(path.parent) for path in files(done, "probe.json")]
    assert len(probes) == 3
    lines = (out / "probe.csv").read_text().splitlines()[1:]
    assert len(lines) == sum(len(one.points) for one in probes)  # type: ignore[union-attr]
    assert {tuple(line.split(",")[:2]) for line in lines} == set(FOUND)
    assert len(files(done, "cka.json")) == 1 + 3  # what moved, and every pair
    likeness = (out / "likeness.csv").read_text()
    assert '"tuned on images, finetuned",its origin' in likeness
    assert "ViT 2,ViT 5" in likeness
    assert {path.suffix for path in (out / "figures").iterdir()} == {".svg", ".pdf"}
    assert (out / "decoders.csv").read_text().count("ViT,linear") == 2
    assert (out / "weights.csv").read_text().count("UNet gw,images,logistic,mean") == 4


def test_what_is_done_is_not_done_again_and_what_is_lost_is(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {**files(done, "probe.json"), **files(done, "cka.json"), **files(done, "result.json")}
    assert again(done, "dry_run=true") == []
    assert capsys.readouterr().out.count(" done ") == 4 + 7
    lost, damaged = sorted(files(done, "probe.json"))[:2]
    kept = json.loads(lost.read_text())["points"]
    shutil.rmtree(lost.parent)
    damaged.write_text("{")
    for store in (done / "out" / "features").iterdir():
        shutil.rmtree(store)  # they may be removed when all is done, and are made again where something needs them
    again(done)
    after = {**files(done, "probe.json"), **files(done, "cka.json"), **files(done, "result.json")}
    assert after.keys() == before.keys()
    assert [path for path in after if after[path] != before[path]] == sorted([lost, damaged])
    assert json.loads(lost.read_text())["points"] == kept


def test_a_study_that_fails_is_listed_and_the_report_has_the_rest(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done, tmp_path / "copy")
    folder = tmp_path / "copy"
    monkeypatch.setattr(satdifuser.study.cka, "likeness", _fails)
    shutil.rmtree(next((folder / "out").glob("cka/*/")))
    with pytest.raises(UserError, match=r"1 of 11 runs and studies failed .* likeness of"):
        again(folder)
    text = (folder / "out" / "report.html").read_text(encoding="ascii")
    assert "Runs that failed" in text
    assert '<section id="depth-probes"' in text
