"""The settings of the commands: refused by name at the door, the same after a round trip, and as the YAML has them."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from satdifuser.cli import main
from satdifuser.config import composed, config_root, groups, settings_of
from satdifuser.errors import UserError
from satdifuser.help import described
from satdifuser.settings.base import Settings, inner_groups, kinds_of
from satdifuser.settings.by_command import COMMANDS
from satdifuser.settings.commands import TrainSettings
from satdifuser.settings.part import Part
from satdifuser.yaml_file import load_yaml

OWN = {"probe": "probe", "cka": "cka"}  # groups of the commands of the same name
OF = {"store": "extract", "experiment": "compare", "unet": "pretrain", **OWN}  # a group's command
SIDE = ["first=some.zarr"]  # what satdifuser cka is always told

# what an attack found accepted, or ending in a traceback, and its like: one line that names the setting
WRONG = [
    ("train", "trainer.clip_norm=-1", "trainer.clip_norm is -1: it must be a number above 0, or null"),
    ("train", "trainer.clip_norm=0", "trainer.clip_norm is 0: it must be a number above 0, or null"),
    ("train", "trainer.lr=nan", "trainer.lr is nan: it must be a number above 0"),
    ("train", "trainer.lr=abc", "trainer.lr is 'abc': it must be a number above 0"),
    ("train", "trainer.lr=null", "trainer.lr is null: it must be a number above 0"),
    ("train", "trainer.lr=inf", "trainer.lr is inf: it must be a number above 0"),
    ("train", "trainer.lr=[0.1]", "trainer.lr is [0.1]: it must be a number above 0"),
    ("train", "trainer.max_steps=0", "trainer.max_steps is 0: it must be a whole number of 1 or more, or null"),
    ("train", "trainer.patience=0", "trainer.patience is 0: it must be a whole number of 1 or more, or null"),
    ("train", "trainer.epochs=1.5", "trainer.epochs is 1.5: it must be a whole number of 1 or more"),
    ("train", "trainer.epochs=true", "trainer.epochs is true: it must be a whole number of 1 or more"),
    ("train", "trainer.weight_decay=-1", "trainer.weight_decay is -1: it must be a number of 0 or more"),
    ("train", "trainer.min_lr=-1", "trainer.min_lr is -1: it must be a number of 0 or more"),
    ("train", "trainer.warmup_epochs=nan", "trainer.warmup_epochs is nan: it must be a number of 0 or more"),
    ("train", "trainer.workers=-1", "trainer.workers is -1: it must be a whole number of 0 or more"),
    ("train", "trainer.mixed_precision=fp61", "trainer.mixed_precision is 'fp61': it can be no, bf16 or fp16"),
    ("train", "trainer.mixed_precision=no", None),
    ("train", "trainer.tensorboard=maybe", "trainer.tensorboard is 'maybe': it must be true or false"),
    ("train", "trainer.accumulate=33", "trainer.accumulate (33) cannot exceed trainer.batch_size (32)"),
    ("train", "trainer.optimizer=adma", "trainer.optimizer is 'adma': it can be adam or adamw; did you mean adam"),
    ("train", "trainer.min_lr=1", "trainer.min_lr (1) cannot exceed trainer.lr (0.01)"),
    ("train", "trainer.lr=1e300", "trainer.lr is 1e+300: it must be a number above 0, and at most 1e+30"),
    ("train", "trainer=null", "trainer=null is no choice: there is default"),
    ("train", "fusion=3", "fusion=3 is no choice: there is concat"),
    ("train", "select=null", "select is null: it must be names with values"),
    ("train", "run=2024", "run is 2024: it must be a path; write run=./2024"),
    ("train", "+fusion.spec=3", "fusion.spec is not a setting"),
    ("train", "+task.labels=3", "task.labels is not a setting"),
    ("extract", "store.shard_mb=1e303", "store.shard_mb is 1e+303"),
    ("pretrain", "recipe.min_lr=1", "recipe.min_lr (1) cannot exceed recipe.lr"),
    ("pretrain", "schedule.beta_start=0.5", "schedule.beta_start (0.5) cannot exceed beta_end (0.012)"),
    ("train", "seed=-1", "seed is -1: it must be a whole number of 0 or more"),
    ("train", "seed=1.5", "seed is 1.5: it must be a whole number"),
    ("train", "seed=null", "seed is null: it must be a whole number"),
    ("train", "seed=99999999999", "seed is 99999999999: it must be a whole number of 0 or more, below 2^32"),
    ("train", "budget=0", "budget is 0: it must be a number above 0 and at most 100"),
    ("train", "budget=nan", "budget is nan"),
    ("train", "budget=101", "budget is 101"),
    ("train", "run=''", "run is '': it must be a path"),
    ("train", "features=''", "features is '': it must be a path, or null"),
    ("train", "resume=yes_please", "resume is 'yes_please': it must be true or false"),
    ("train", "select.timesteps=[]", "select.timesteps is []: it must be a list of 1 or more"),
    ("train", "select.taps=mid_block", "select.taps is 'mid_block': it must be a list of 1 or more, each a word"),
    ("train", "decoder=upernet decoder.channels=0", "decoder.channels is 0: it must be a whole number of 1 or more"),
    ("train", "decoder=upernet decoder.dropout=1", "decoder.dropout is 1: it must be a number from 0 to below 1"),
    ("train", "decoder=upernet decoder.pool_scales=[0]", "decoder.pool_scales is [0]: it must be a list of 1 or more"),
    ("train", "fusion=moe fusion.experts=0", "fusion.experts is 0: it must be a whole number of 1 or more"),
    ("train", "fusion=moe fusion.balance=inf", "fusion.balance is inf: it must be a number of 0 or more"),
    ("train", "fusion=moe fusion.warmup_steps=-1", "fusion.warmup_steps is -1"),
    ("train", "fusion=lw fusion.tau=0", "fusion.tau is 0: it must be a number above 0"),
    ("train", "fusion.projection_dim=4", "fusion.projection_dim is 4: it must be a whole number of 8 or more"),
    ("train", "fusion.norm=layer", "fusion.norm is 'layer': it can be group or batch"),
    ("train", "data.cloud=2", "data.cloud is 2: it must be a number from 0 to 1"),
    ("train", "data.nodata=nan", "data.nodata is nan: it must be a number from 0 to 1"),
    ("train", "data.seed=-1", "data.seed is -1: it must be a whole number of 0 or more"),
    ("train", "data.size=8", "data.size is 8: it must be a whole number of 16 or more (px)"),
    ("train", "data.splits.val.length=0", "data.splits.val.length is 0: it must be a whole number from 1 to 1000000"),
    ("train", "encoder.prepare.high=inf", "encoder.prepare.high is inf: it must be a number"),
    ("train", "encoder.prepare.low=nan", "encoder.prepare.low is nan: it must be a number"),
    ("train", "encoder.prepare.std=0", "encoder.prepare.std is 0: it must be a number above 0"),
    ("train", "encoder.prepare.mean=[0.1,nan,0.2]", "encoder.prepare.mean is [0.1, nan, 0.2]"),
    ("train", "encoder.timesteps=[21,x]", "encoder.timesteps is [21, 'x']: it must be a list, each a whole number"),
    ("train", "encoder.noise_draws=0", "encoder.noise_draws is 0"),
    ("train", "encoder.mode=invert", "encoder.mode is 'invert': it can be noise, inversion or generation"),
    ("train", "encoder.batch=0", "encoder.batch is 0: it must be a whole number of 1 or more, or null"),
    ("train", "encoder.backbone.seed=-1", "encoder.backbone.seed is -1"),
    ("train", "encoder=small_vit adapter=lora encoder.adapter.r=0", "encoder.adapter.r is 0"),
    ("train", "encoder=small_vit adapter=deflect encoder.adapter.epsilon=nan", "encoder.adapter.epsilon is nan"),
    ("train", "encoder=unet adapter=lora", "adapter= is for vision transformers"),
    ("train", "encoder=unet encoder.width=12", "encoder.width is 12"),
    ("extract", "store.batch_size=0", "store.batch_size is 0: it must be a whole number of 1 or more"),
    ("extract", "store.workers=-1", "store.workers is -1: it must be a whole number of 0 or more, or null"),
    ("extract", "store.path=''", "store.path is '': it must be a path"),
    ("extract", "store.path=null", "store.path is null: it must be a path"),
    ("extract", "store.shard_mb=0", "store.shard_mb is 0: it must be a number above 0"),
    ("extract", "store.shard_mb=nan", "store.shard_mb is nan"),
    ("extract", "store.dtype=float61", "store.dtype is 'float61': it can be float32, float16, bfloat16 or int8"),
    ("extract", "store.splits=[]", "store.splits is []: it must be a list of 1 or more"),
    ("extract", "on_error=ignore", "on_error is 'ignore': it can be stop or skip"),
    (
        "extract",
        "data=image_folder data.limit=inf",
        "data.limit is inf: it must be a whole number of 1 or more, or null",
    ),
    ("extract", "data=image_folder data.val=-1", "data.val is -1: it must be a number from 0 to below 1"),
    (
        "extract",
        "data=image_folder data.fit=corp",
        "data.fit is 'corp': it can be none, crop, pad or resize; did you",
    ),
    ("extract", "data=image_folder", "data.root is not set: give it, as data.root=..."),
    ("pretrain", "recipe.steps=nan", "recipe.steps is nan: it must be a whole number of 1 or more"),
    ("pretrain", "recipe.steps=0", "recipe.steps is 0"),
    ("pretrain", "recipe.ema=1", "recipe.ema is 1: it must be a number from 0 to below 1, or null"),
    (
        "pretrain",
        "recipe.betas=[0.9]",
        "recipe.betas is [0.9]: it must be a list of 2, each a number from 0 to",
    ),
    ("pretrain", "recipe.levels=[]", "recipe.levels is []: it must be a list of 1 or more"),
    ("pretrain", "recipe.levels=[1000]", "recipe.levels has 1000, but schedule.num_train_timesteps is 1000"),
    ("pretrain", "recipe.minutes=0", "recipe.minutes is 0"),
    ("pretrain", "mix_share=2", "mix_share is 2: it must be a number from 0 to 1"),
    ("pretrain", "min_snr=nan", "min_snr is nan"),
    ("pretrain", "schedule.beta_end=inf", "schedule.beta_end is inf"),
    ("pretrain", "schedule.prediction_type=v", "schedule.prediction_type is 'v': it can be epsilon, v_prediction or"),
    ("pretrain", "vae.steps=0", "vae.steps is 0"),
    ("pretrain", "vae.kl=-1", "vae.kl is -1"),
    ("pretrain", "export=fp16", "export is 'fp16': it can be float32, float16 or bfloat16"),
    ("pretrain", "card.data=one", "card.data is 'one': it must be a list, each a word"),
    ("compare", "resamples=0", "resamples is 0: it must be a whole number of 1 or more"),
    ("compare", "shown=-1", "shown is -1: it must be a whole number of 0 or more"),
    ("compare", "threads=0", "threads is 0: it must be a whole number of 1 or more, or null"),
    ("eval", "split=null", "split is null: it must be a word"),
]


@pytest.mark.parametrize(("command", "words", "expected"), WRONG, ids=lambda value: str(value)[:50])
def test_what_a_setting_cannot_be_is_one_line_at_the_door(
    command: str, words: str, expected: str | None, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: Any
) -> None:
    if expected is None:  # `no` of YAML is false, and Hydra's is a word
        assert settings_of(command, composed(command, words.split())).trainer.mixed_precision == "no"
        return
    monkeypatch.chdir(tmp_path)
    code = main([command, *words.split()])
    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    assert expected in said
    assert list(tmp_path.iterdir()) == [] or command == "compare"


@pytest.mark.parametrize("command", COMMANDS)
def test_any_number_of_any_command_that_is_nan_or_infinite_is_refused_by_name(command: str) -> None:
    plain = _plain(command)
    tried = 0
    for path, value in _leaves(plain):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        for bad in (math.nan, math.inf, -math.inf, "abc", [value], {"a": 1}):
            if isinstance(bad, list | dict) and path[-1] in LISTS:
                continue
            if path[0] == "unet" and not isinstance(bad, float):  # of diffusers, which says what it takes
                continue
            tried += 1
            with pytest.raises(UserError) as error:
                COMMANDS[command](**_with(plain, path, bad))
            assert path[-1] in str(error.value)
            assert "\n" not in str(error.value)
    assert tried >= (20 if command in ("extract", "train", "pretrain") else 0)


LISTS = ("mean", "std", "low", "high")  # a number, or one for each band


@pytest.mark.parametrize("command", COMMANDS)
def test_settings_are_the_same_after_a_round_trip(command: str) -> None:
    settings = COMMANDS[command](**_plain(command))
    again = COMMANDS[command](**yaml.safe_load(settings.yaml()))
    assert again == settings
    assert again.plain() == settings.plain()
    assert settings.but() == settings


@pytest.mark.parametrize("command", COMMANDS)
def test_the_defaults_of_the_yaml_are_those_of_the_settings(command: str) -> None:
    """A run of an earlier version lacks what is newer, and gets what the YAML would have said."""

    def compare(model: type[Settings], values: dict[str, Any]) -> None:
        for name, field in model.model_fields.items():
            if name in inner_groups(model):
                compare(inner_groups(model)[name], values[name])
            elif not field.is_required():
                assert values.get(name, field.default) == field.default, name
        assert not values.keys() - model.model_fields.keys() or model.model_config.get("extra") == "allow"

    compare(COMMANDS[command], _plain(command))


@pytest.mark.parametrize("word", ["1e3", "12e5", "5E10", "+1e3", "1_000", "0x1f", "yes", "null", "~", "1:30", "é: #"])
def test_words_that_look_like_something_else_stay_words(word: str, tmp_path: Path) -> None:
    settings = TrainSettings(**_plain("train")).but(init=word)
    (tmp_path / "config.yaml").write_text(settings.yaml(), encoding="utf-8")
    assert TrainSettings(**load_yaml(tmp_path / "config.yaml")).init == word


def test_keys_that_are_no_words_are_named_as_all_others(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("trainer: {1: 2}\nfusion: {3: 2}\n")
    with pytest.raises(UserError, match=r"there is no setting 'trainer\.1'|fusion has no _target_"):
        TrainSettings(**{**_plain("train"), **load_yaml(tmp_path / "config.yaml")})


def test_settings_cannot_be_changed_behind_the_check() -> None:
    settings = TrainSettings(**_plain("train"))
    with pytest.raises(Exception, match="frozen"):
        settings.seed = -1
    with pytest.raises(UserError, match="seed is -1"):
        settings.but(seed=-1)
    assert settings.but(seed=3).seed == 3


def test_every_choice_of_every_group_is_settings_of_its_command() -> None:
    for group, names in groups().items():
        command = OF.get(group, "train")
        for name in names:
            words = [f"{group}={name}", *{"adapter": ["encoder=small_vit"], "cka": SIDE}.get(group, [])]
            settings = settings_of(command, composed(command, words))
            assert COMMANDS[command](**settings.plain()) == settings


def test_what_is_missing_is_said_where_it_is_built_and_not_before() -> None:
    settings = settings_of("train", composed("train", ["data=image_folder", "features=some.zarr"]))
    with pytest.raises(UserError, match=r"^data\.root is not set: give it, as data\.root=\.\.\.$"):
        settings.data.split("train")
    with pytest.raises(UserError, match=r"^data has no split 'tset': it has train, val, test; did you mean test"):
        settings.data.split("tset")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_setting_is_described_with_its_default(command: str) -> None:
    rows = [row for found in described(command).values() for row in found]
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    leaves = {".".join(path) for path, _ in _leaves(_plain(command)) if "_target_" not in path}
    lost = {leaf for leaf in leaves if not any(leaf == name or leaf.startswith(f"{name}.") for name in names)}
    assert not lost
    for row in rows:
        assert row.default
        assert row.kind or row.name.startswith(("data.sensor", "unet.")), row


def test_help_with_a_choice_says_what_each_setting_can_be(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--help", "fusion=moe"]) == 0
    said = capsys.readouterr().out
    assert "fusion=moe:" in said
    assert "fusion.top_k" in said
    assert "a whole number of 1 or more" in said
    assert "what one optimiser step sees" in said


def test_a_class_of_ones_own_is_checked_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_heads.py").write_text(
        "from satdifuser.fusion import UniformMean\n"
        "from satdifuser.kinds import Share, checked\n"
        "class Mine(UniformMean):\n"
        "    @checked('fusion')\n"
        "    def __init__(self, spec, projection_dim: int = 16, share: Share = 0.5, free=None):\n"
        "        super().__init__(spec, projection_dim)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["fusion._target_=my_heads.Mine", "~fusion.norm", "~fusion.init"]
    for more, expected in (("+fusion.share=2", "fusion.share is 2"), ("+fusion.free=nan", "fusion.free is nan")):
        with pytest.raises(UserError, match=expected):
            _compose("train", [*words, more])
    assert isinstance(_compose("train", [*words, "+fusion.share=1"]).fusion, Part)


def _compose(command: str, words: list[str]) -> Any:
    from satdifuser.config import compose

    return compose(command, words)


def _plain(command: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(composed(command, []), resolve=True)
    return found


def _leaves(values: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if not isinstance(values, dict) or not values:
        return [(path, values)]
    return [leaf for name, value in values.items() for leaf in _leaves(value, (*path, str(name)))]


def _with(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**values, first: _with(values[first], tuple(rest), value) if rest else value}


def test_a_broken_experiment_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    damaged = [
        "# @package _global_\nmodels: [unclosed",
        "\x00\x01",
        "a: b: c",
        "- 1\n- 2",
        "models: {a: }}",
        "\t- x: 1",
    ]
    for text in (*damaged, *(bytes(random.randrange(256) for _ in range(60)).decode("latin-1") for _ in range(20))):
        file.write_bytes(text.encode("latin-1"))
        code = main(["compare", "experiment=mine", "dry_run=true", "--config-dir", str(tmp_path)])
        said = capsys.readouterr().err
        assert code == 2, (text, said)
        assert said.count("\n") == 1
        assert "mine" in said


def test_the_configurations_lie_where_they_are_looked_for() -> None:
    assert {f"{name}.yaml" for name in COMMANDS} <= {path.name for path in config_root().iterdir()}
    assert set(kinds_of(TrainSettings)) >= {"encoder", "trainer"}


def test_own_groups_of_any_path_are_found_and_have_help(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "é (a) = 'b', #c"
    (folder / "fusion").mkdir(parents=True)
    (folder / "fusion" / "own.yaml").write_text(
        "_target_: satdifuser.fusion.GlobalWeighted\nprojection_dim: 16   # mine\n"
    )
    assert main(["train", "--help", "fusion=own", "--config-dir", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "fusion=own:" in said
    assert "mine; takes a whole number" in said
