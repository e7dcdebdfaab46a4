"""`--help` fits in 100 columns and shows the chosen groups; `--cfg` prints what can be read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from satdifuser.cli import COMMANDS, main
from satdifuser.config import compose, composed, settings_of
from satdifuser.written import sections
from satdifuser.yaml_file import load_yaml

CHOSEN = {"train": ["encoder=vit", "adapter=lora"], "compare": ["experiment=evidence", "encoder=vit"]}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_line_of_help_fits_in_100_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for chosen in ([], CHOSEN[name]) if name in CHOSEN else ([],):
        assert main([name, "--help", *chosen]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"satdifuser {name}: ")
        assert [line for line in said.splitlines() if len(line) > 100] == []


def test_the_overview_fits_in_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_help_shows_the_settings_of_the_usual_choices_with_their_comments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    said = capsys.readouterr().out
    for name, rows in sections("train").items():
        assert f"\n{name or 'settings'}" in said
        for row in rows:
            assert f"  {row.name}=" in said
    assert "encoder.timesteps=[0, 21, 61]         training timesteps: 0 is clean, 999 is noise\n" in said
    assert "select.depths=null" in said


def test_help_of_a_choice_shows_what_its_settings_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help", "encoder=vit"]) == 0
    said = capsys.readouterr().out
    section = said.split("\nencoder=vit:\n")[1].split("\n\n")[0]
    assert "  encoder.backbone.model=vit_tiny_patch16_224\n" in section
    assert "pretrained (timm's, from the hub)" in " ".join(section.split())
    assert "takes true or false" in section
    assert "encoder.timesteps" not in said


def test_help_of_a_grid_shows_its_experiment_and_what_its_runs_choose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help", "experiment=evidence", "fusion=moe"]) == 0
    said = capsys.readouterr().out
    assert "\nexperiment=evidence:\n" in said
    assert "  fusion.top_k=2" in said.split("\nfusion=moe (of each satdifuser train):\n")[1]
    assert "trainer.lr=" not in said.split("\nfusion=moe")[1]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("train", ["encoder=vit", "adapter=lora", "trainer.lr=1e-4", "data=geobench", "data.task=m-eurosat"]),
        ("pretrain", ["data@mix=synthetic"]),
        ("extract", ["store.path=x.zarr"]),
        ("eval", []),
    ],
)
def test_cfg_prints_what_can_be_read_back(
    name: str, overrides: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([name, *overrides, "--cfg"]) == 0
    said = capsys.readouterr()
    (tmp_path / "read.yaml").write_text(said.out)
    values = load_yaml(tmp_path / "read.yaml")
    assert "${" not in said.out
    assert not said.err
    assert settings_of(name, OmegaConf.create(values)).plain() == compose(name, overrides).plain()
    assert [path.name for path in tmp_path.iterdir()] == ["read.yaml"]  # nothing was run


def test_cfg_needs_no_setting_that_a_run_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--cfg", "run=runs/a", "hydra/launcher=joblib"]) == 0
    read = OmegaConf.create(capsys.readouterr().out)
    assert read.run == "runs/a"
    assert OmegaConf.is_missing(read, "scene")
    assert main(["data", "check", "--cfg", "data=image_folder"]) == 0
    assert OmegaConf.is_missing(OmegaConf.create(capsys.readouterr().out).data, "root")


def test_cfg_of_a_grid_has_its_own_settings_and_the_overrides_of_its_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--cfg", "fusion=gw,lw", "seeds=[0,1]", "trainer.lr=0.1"]) == 0
    read = OmegaConf.create(capsys.readouterr().out)
    assert list(read.seeds) == [0, 1]
    assert list(read.recipe) == ["fusion=gw,lw", "trainer.lr=0.1"]
    assert main(["demo", "--cfg"]) == 0
    models = OmegaConf.create(capsys.readouterr().out).models
    assert list(models) == list(composed("compare", ["experiment=demo"]).models)


def test_cfg_of_a_command_without_settings_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--cfg"]) == 2
    assert "satdifuser doctor takes no overrides, but got '--cfg'" in capsys.readouterr().err
    assert main(["train", "--cfg", "fusion=gww"]) == 2
    assert "did you mean gw" in capsys.readouterr().err
