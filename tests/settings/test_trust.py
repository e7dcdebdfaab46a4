"""Whose code a configuration may name: nothing else is ever imported, called or made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from satdifuser.cli import main
from satdifuser.commands import eval as evaluation
from satdifuser.commands import train
from satdifuser.config import compose, trusted_by
from satdifuser.errors import UserError
from satdifuser.settings.commands import TrainSettings
from satdifuser.settings.part import Part
from satdifuser.settings.trust import find, named_in, trusting

TINY = [
    "encoder=unet",
    "encoder.width=8",
    "encoder.levels=2",
    "data.size=16",
    "data.splits.train.length=8",
    "data.splits.val.length=4",
    "data.splits.test.length=4",
    "fusion=mean",
    "fusion.projection_dim=16",
    "decoder=linear",
    "trainer.max_steps=2",
    "trainer.tensorboard=false",
    "trainer.batch_size=4",
]
EVIL = """
from pathlib import Path
import torch
from satdifuser.fusion import UniformMean
Path({path!r}).touch()
class Head(UniformMean):
    pass
def make(spec, **settings) -> UniformMean:
    return UniformMean(spec, **settings)
def untold(spec, **settings):
    return UniformMean(spec, **settings)
"""
NEVER = [
    "shutil.copy",
    "os.system",
    "posix.system",
    "subprocess.run",
    "torch.load",
    "pathlib.Path",
    "builtins.eval",
    "satdifuser.engine.run.shutil.rmtree",
    "satdifuser.compare.worker.shutil.rmtree",
    "satdifuser.engine.run.Path",
    "satdifuser.engine.run.RunFolder.open",
    "satdifuser.engine.files.write_text",
    "satdifuser.cli.main",
    "satdifuser.cli.importlib.import_module",
    "satdifuser.config.compose",
    "satdifuser.data.batches.loader",
    "satdifuser.engine.run.PASSING",
    "satdifuser.nothing.Head",
    "satdifuser.fusion.gw",
    "satdifuser",
    "deflect.adapters.lowrank.nn.Module",
    "deflect.vit.ViTEncoder",
    "",
    ".",
    "a..b",
    "satdifuser.fusion.GlobalWeighted ",
    "__import__('os').system",
    "satdifuser.fusion.__class__",
    None,
    3,
]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of somebody's, on the path; that it was imported is seen by a file."""
    (tmp_path / "somebodys.py").write_text(EVIL.format(path=str(tmp_path / "imported")))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "somebodys"
    sys.modules.pop("somebodys", None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    train.run(compose("train", [*TINY, f"run={tmp_path / 'run'}"]), quiet=True, draw=False)
    return tmp_path / "run"


def renamed(run: Path, old: str, new: str) -> None:
    file = run / "config.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("target", NEVER, ids=repr)
def test_what_is_no_head_is_never_one(target: Any) -> None:
    with pytest.raises(UserError) as error:
        compose("train", [f"fusion._target_={'null' if target is None else repr(target)}"])
    assert "\n" not in str(error.value)
    assert "fusion" in str(error.value)


@pytest.mark.parametrize("inner", ["prepare", "backbone", "adapter"])
@pytest.mark.parametrize(
    "target", ["shutil.copy", "satdifuser.engine.files.write_text", "satdifuser.engine.run.RunFolder"]
)
def test_nor_is_a_part_of_a_part(inner: str, target: str) -> None:
    plain = compose("train", []).plain()
    plain["encoder"] |= {inner: {"_target_": target, "path": "/tmp/x", "text": "y"}}
    with pytest.raises(UserError, match=rf"^encoder\.{inner}\._target_ (is|asks for) "):
        TrainSettings(**plain)


def test_a_runs_configuration_is_not_imported_from_unless_it_is_trusted(
    run: Path, package: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    renamed(run, "satdifuser.fusion.UniformMean", "somebodys.Head")
    assert main(["eval", f"run={run}"]) == 2
    said = capsys.readouterr().err
    assert "fusion._target_ asks for somebodys.Head, which is not code of this project" in said
    assert "--trust somebodys" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "imported").exists()
    assert "somebodys" not in sys.modules
    assert main(["eval", f"run={run}", "--trust", "somebodys"]) == 0
    assert (tmp_path / "imported").exists()


def test_a_folder_of_ones_own_says_what_is_trusted_too(run: Path, package: str, tmp_path: Path) -> None:
    renamed(run, "satdifuser.fusion.UniformMean", "somebodys.Head")
    (tmp_path / "mine" / "fusion").mkdir(parents=True)
    (tmp_path / "mine" / "fusion" / "head.yaml").write_text("_target_: somebodys.Head\n")
    assert trusted_by([str(tmp_path / "mine")], []) == {"somebodys"}
    assert main(["eval", f"run={run}", "--config-dir", str(tmp_path / "mine")]) == 0


def test_init_looks_at_the_other_run_with_the_same_eyes(run: Path, package: str, tmp_path: Path) -> None:
    renamed(run, "satdifuser.fusion.UniformMean", "somebodys.Head")
    words = [*TINY, f"run={tmp_path / 'next'}", f"init={run}"]
    with pytest.raises(UserError, match=r"asks for somebodys\.Head"):
        train.run(compose("train", words), quiet=True, draw=False)
    assert not (tmp_path / "imported").exists()
    assert not (tmp_path / "next").exists()


def test_ones_own_words_are_trusted(package: str) -> None:
    settings = compose("train", [*TINY, "fusion._target_=somebodys.make"])
    assert settings.fusion.label == "make"
    with pytest.raises(UserError, match="what belongs there is a FusionHead"):
        compose("train", [*TINY, "fusion._target_=somebodys.untold"])


def test_a_sensor_is_looked_for_in_trusted_packages_alone(run: Path, package: str, tmp_path: Path) -> None:
    renamed(run, "sensor: satdifuser.data.bands.SENTINEL2", "sensor: somebodys.SENSOR")
    with pytest.raises(UserError, match=r"sensor asks for somebodys\.SENSOR"):
        evaluation.run(compose("eval", [f"run={run}"]))
    assert not (tmp_path / "imported").exists()


def test_trust_ends_with_its_block(package: str) -> None:
    with trusting(["somebodys"]):
        assert find("somebodys.Head", "x").__name__ == "Head"
    with pytest.raises(UserError, match="asks for somebodys"):
        find("somebodys.Head", "x")


def test_options_cannot_make_a_library_load_a_file() -> None:
    for option in ("checkpoint_path", "pretrained_cfg", "pretrained"):
        words = ["encoder=vit", f"+encoder.backbone.options.{option}=/tmp/x.pth"]
        with pytest.raises(
            UserError, match=rf"options cannot have {option}: give the file as encoder.backbone.weights"
        ):
            compose("train", words).encoder.build()


def test_a_part_is_made_of_what_it_says() -> None:
    kind = "satdifuser.decoders.base.Decoder"
    part = Part(
        {"_target_": "satdifuser.decoders.UPerNet", "channels": 8}, "decoder", "satdifuser.decoders.base.Decoder"
    )
    assert part.plain() == {"_target_": "satdifuser.decoders.UPerNet", "channels": 8}
    assert part == Part(part.plain(), "decoder", part.kind)
    with pytest.raises(UserError, match=r"decoder\.chanels: UPerNet has no such setting; did you mean channels"):
        Part({"_target_": "satdifuser.decoders.UPerNet", "chanels": 8}, "decoder", kind)


def test_words_are_trusted_by_their_keys_and_not_by_their_values() -> None:
    assert named_in([], ["run=dl/sensor=evil.v2", "title=_target_=evil.X", "features=/x/_target_: evil.Y"]) == set()
    assert named_in([], ["fusion._target_=mine.H", "++data.sensor='bands_of_mine.S'"]) == {"mine", "bands_of_mine"}
    assert named_in([{"models": {"a": ["encoder._target_=own.E"]}, "note": "sensor of evil.Z"}], []) == {"own"}


def test_a_folder_of_groups_is_trusted_for_its_groups_alone(
    run: Path, package: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A hostile run that lies somewhere below a --config-dir is not trusted by it."""
    renamed(run, "satdifuser.fusion.UniformMean", "somebodys.Head")
    mine = tmp_path / "mine"
    (mine / "fusion" / "odd.yaml").mkdir(parents=True)
    (mine / "fusion" / "gone.yaml").symlink_to(tmp_path / "nowhere")
    for place in (mine / "runs", mine / "fusion" / "run"):
        run = run.rename(place)
        assert main(["eval", f"run={run}", "--config-dir", str(mine)]) == 2
    assert "asks for somebodys.Head" in capsys.readouterr().err
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    "url", ["reference://::file:///x.json", "http://x::file://y", "git://x", "ssh://x/y", "zip://x"]
)
def test_a_store_of_a_run_is_read_from_plain_places_alone(run: Path, url: str) -> None:
    renamed(run, "features: null", f"features: '{url}'")
    with pytest.raises(UserError, match="a store lies in a folder, or at s3://"):
        evaluation.run(compose("eval", [f"run={run}"]))


@pytest.mark.parametrize("option", ["megatron_core", "megatron_config", "auto_mapping"])
def test_options_of_peft_name_no_code(option: str) -> None:
    words = ["encoder=small_vit", "adapter=peft", f"+encoder.adapter.options.{option}=shutil"]
    with pytest.raises(UserError, match=f"options cannot have {option}: it names code"):
        compose("train", words).encoder.build()


def test_data_is_a_class_of_samples_and_says_what_they_are(package: str) -> None:
    plain = compose("train", []).plain()
    for target in ("satdifuser.report.tables.latex_text", "satdifuser.engine.files.json_text"):
        with pytest.raises(UserError, match=r"^data\._target_ is .*: what belongs there is a class of samples$"):
            TrainSettings(**{**plain, "data": {"_target_": target, "splits": {"test": {}}}})
    bank = {"_target_": "satdifuser.bank.FeatureBank", "splits": {"test": {}}}
    with pytest.raises(UserError):
        TrainSettings(**{**plain, "data": bank}).data.split("test")


def test_a_part_that_is_changed_is_trusted_as_it_was(package: str) -> None:
    part = compose("train", ["~fusion.norm", "fusion._target_=somebodys.Head"]).fusion
    assert part.but(projection_dim=16)["projection_dim"] == 16
    with pytest.raises(UserError, match="asks for somebodys"):
        find("somebodys.Head", "x")


def test_what_all_of_a_kind_have_in_common_is_none_of_them() -> None:
    for group, target in (("task", "tasks.base.Task"), ("fusion", "fusion.base.FusionHead")):
        with pytest.raises(UserError, match="choose one of them"):
            compose("train", [f"{group}._target_=satdifuser.{target}"])


def test_a_file_of_ones_own_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_head.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"broken_head\.Head, whose file cannot be imported \(ZeroDivisionError"):
        compose("train", ["fusion._target_=broken_head.Head"])
