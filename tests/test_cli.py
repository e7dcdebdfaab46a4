"""The command line: help without heavy imports, one-line errors with a way out, right exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from satdifuser.cli import COMMANDS, main
from satdifuser.commands.table import named
from satdifuser.compare.command import split_overrides
from satdifuser.compare.grid import expand
from satdifuser.compare.overrides import merged
from satdifuser.config import compose, composed, groups

OWN = {"probe": "probe", "cka": "cka"}  # groups of the commands of the same name
OF = {"store": "extract", "experiment": "compare", "unet": "pretrain", **OWN}  # a group's command
SIDE = ["first=some.zarr"]  # what satdifuser cka is always told


def fails(capsys: pytest.CaptureFixture, *words: str) -> str:
    """The one line on standard error of a call that must exit with 2."""
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith("satdifuser: ")
    return said


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from satdifuser.cli import main; main(['--help']); main(['train', '--help']);"
        "heavy = {'torch', 'diffusers', 'hydra', 'zarr', 'torchgeo', 'matplotlib', 'rasterio'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert name in done.stdout


def test_every_command_has_help_with_examples_that_compose() -> None:
    for name, command in COMMANDS.items():
        assert main([name, "--help"]) == 0
        for example in command.examples:
            words = example.replace("'", "").split()
            rest = words[words.index("satdifuser") + 1 :]
            assert rest[0] == name
            if command.composes:
                own, passed, _ = split_overrides(merged(["experiment=demo"] if name == "demo" else [], rest[1:]))
                config = compose("compare", own)
                assert config.models or expand(config, passed)
            elif command.configured:
                compose(name, named(command.positional, rest[2 if command.verbs else 1 :]))


@pytest.mark.parametrize("words", [["predict", "out=map.tif"], ["embed", "out=a.zarr"], ["evaluate-map", "map.tif"]])
def test_what_a_command_cannot_do_without_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    name = "reference" if words[0] == "evaluate-map" else "scene"
    assert capsys.readouterr().err == f"satdifuser: {name} is not set: give it, as {name}=...\n"


def test_every_choice_of_every_group_composes() -> None:
    for group, names in groups().items():
        command = OF.get(group, "train")
        for name in names:
            plain = compose(command, [f"{group}={name}", *(SIDE if group == "cka" else [])]).plain()
            asked = {"experiment": "models"}.get(group, group)
            found = plain["encoder"]["adapter"] if group == "adapter" else plain[asked]
            assert found is None if (group, name) in (("temporal", "none"), ("loss", "own")) else found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "did you mean train"),
        (["train", "--verbose"], "no option '--verbose'"),
        (["train", "experiment=demo"], "no setting 'experiment' in satdifuser train"),
        (["train", "fusion=gww"], "there is concat, gw, levels, lw, mean, moe, plain; did you mean gw"),
        (["train", "fusion.projectiondim=3"], "did you mean fusion.projection_dim"),
        (["train", "trainer.epoch=3"], "did you mean trainer.epochs"),
        (["train", "encoder.timesteps={a: 1}"], "encoder.timesteps is [0, 21, 61] and cannot become names with values"),
        (["train", "data.splits=[a]"], "and cannot become a list: write data.splits={...}"),
        (
            ["train", "data=torchgeo", "data.dataset=EuroSAT", "data.arguments.bands=all"],
            "data.arguments is null, and so has no bands yet: write +data.arguments.bands=..., or"
            " data.arguments={bands: ...}",
        ),
        (["train", "encoder.timesteps=0,21"], "a list is written in brackets, as encoder.timesteps=[0,21]"),
        (["extract", "encoder.timesteps=0,21"], "as encoder.timesteps=[0,21]"),
        (["train", "fusion=gw,lw"], "satdifuser compare fusion=gw,lw makes a run of each"),
        (["train", "seed=range(3)"], "satdifuser compare seed=range(3) makes a run of each"),
        (["train", "--multirun"], "satdifuser compare makes a run of each of several values"),
        (["train", "+fusion=lw"], "fusion is chosen already: leave out the +, as fusion=lw"),
        (["train", "+run=1"], "run is there already: leave out the +, as run=1"),
        (["train", "trainer.lr=${oc.env:NOPE_27}"], "the environment variable NOPE_27 is not set"),
        (["train", "fusion=null"], "fusion=null is no choice: there is concat"),
        (["train", "encoder.timesteps[0]=3"], "is written with a dot, as encoder.timesteps.0="),
        (["train", "moe"], "'moe' is not an override: write name=value"),
        (["train", "features=/nowhere.zarr"], "no feature store at /nowhere.zarr: make one with"),
        (["train", "trainer.lr=0"], "trainer.lr is 0"),
        (["train", "--config-dir", "/nowhere"], "--config-dir /nowhere: no such folder"),
        (["train", "encoder.timesteps=[1000]"], "give distinct training timesteps, 0 (clean) to 999"),
        (["train", "encoder.taps=[up_blocks.0.resnet.1]"], "did you mean up_blocks.0.resnets.1"),
        (["train", "encoder.backbone.weights=/nowhere"], "no folder /nowhere: an unconditional diffusion model"),
        (["train", "data.size=20"], "multiple"),
        (["train", "data.splits.train.length=0"], "data.splits.train.length is 0: it must be a whole number from 1"),
        (["train", "task=classification", "decoder=upernet"], "use decoder=linear"),
        (["train", "encoder.prepare.bands=[B4]"], "no band B4"),
        (["eval", "run=/nowhere"], "no run at /nowhere"),
        (["doctor", "x=1"], "takes no overrides"),
    ],
)
def test_a_users_mistake_is_one_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in fails(capsys, *words)


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(Exception, match="no fusion=nope"):
        main(["train", "fusion=nope", "--debug"])


def test_a_users_own_config_folder_adds_to_the_groups(tmp_path: Path) -> None:
    (tmp_path / "fusion").mkdir()
    (tmp_path / "fusion" / "mine.yaml").write_text("_target_: satdifuser.fusion.GlobalWeighted\nprojection_dim: 40\n")
    config = compose("train", ["fusion=mine"], [str(tmp_path)])
    assert config.fusion["projection_dim"] == 40
    assert config.encoder["timesteps"] == [0, 21, 61]


def test_version_and_doctor(capsys: pytest.CaptureFixture) -> None:
    assert main(["--version"]) == 0
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "shipped weights" in said
    assert "attention" in said


def test_no_command_prints_the_overview_and_fails(capsys: pytest.CaptureFixture) -> None:
    assert main([]) == 2
    assert "usage: satdifuser COMMAND" in capsys.readouterr().out


def test_choices_and_values_of_ones_own_folder_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "data").mkdir()
    own = "defaults: [synthetic]\nclasses: {1: forest, 2: cleared}\n"
    (tmp_path / "data" / "amazon.yaml").write_text(own)
    folder = ["--config-dir", str(tmp_path)]
    said = fails(capsys, "data", "check", *folder, "data=amazn")
    assert "no data=amazn: there is ai4smallfarms, amazon, brick_kiln, " in said
    assert "did you mean amazon?" in said
    said = fails(capsys, "data", "check", *folder, "data=amazon", "data.classes=[forest,cleared]")
    assert "data.classes is {1: forest, 2: cleared} in data=amazon and cannot become a list" in said
    assert "did you mean data.classes" in fails(capsys, "data", "check", *folder, "data=amazon", "data.clases=[a]")
    advised = ["~data.classes", "+data.classes=[forest,cleared]"]
    assert all(word in said for word in ("'~data.classes'", "'+data.classes=[...]'"))
    assert list(composed("data", ["data=amazon", *advised], [str(tmp_path)]).data.classes) == ["forest", "cleared"]
