"""Ranges of an encoder's input from the training images: against numpy, and never from another split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.bank import BankSpec
from satdifuser.build import build_data, build_encoder
from satdifuser.commands import extract
from satdifuser.commands.eval import run as evaluate
from satdifuser.commands.train import run as train
from satdifuser.config import compose
from satdifuser.data import policy
from satdifuser.data.bands import find_sensor
from satdifuser.data.inputs import ImageInput
from satdifuser.data.policy import is_open, resolved
from satdifuser.data.statistics import Tally, moments
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore

DATA = ["data.size=16", "data.splits.train.length=6", "data.splits.val.length=4", "data.splits.test.length=5"]
COLOURS = ["encoder=colours", "encoder.prepare.bands=[B04,B11]"]
MORE = ["encoder.prepare.policy=percentiles", "encoder.prepare.percentiles=[2,90]"]


def pixels(settings: Any, band: int) -> np.ndarray[Any, Any]:
    """All values of a band of the training images that are there."""
    found = []
    for sample in build_data(settings.data, "train"):  # type: ignore[attr-defined]
        image = sample["image"].double().numpy()
        found.append(image[band][(image != 0).any(0)])
    return np.concatenate(found)


def test_percentiles_are_those_of_all_training_pixels() -> None:
    settings = compose("extract", [*DATA, *COLOURS, *MORE])
    made: Any = build_encoder(resolved(settings.encoder, settings.data))
    for place, band in enumerate((3, 11)):
        values = pixels(settings, band)
        step = 1e-4  # of the scenes' numbers
        assert made.prepare.lows[place] == pytest.approx(np.percentile(values, 2), rel=5e-4, abs=step / 2)
        assert made.prepare.highs[place] == pytest.approx(np.percentile(values, 90), rel=5e-4, abs=step / 2)
    assert made.prepare.mean == (0.5, 0.5)


def test_a_standardised_input_has_the_mean_0_and_the_deviation_1_of_the_training_pixels() -> None:
    settings = compose("extract", [*DATA, *COLOURS, "encoder.prepare.policy=standardise"])
    made: Any = build_encoder(resolved(settings.encoder, settings.data))
    inputs = [[], []]  # type: list[list[Any]]
    for sample in build_data(settings.data, "train"):  # type: ignore[attr-defined]
        image = sample["image"]
        given = made.prepare(image[None])[0].double().numpy()
        kept = (image != 0).any(0).numpy()
        for place, band in enumerate((3, 11)):
            values = pixels(settings, band)
            wanted = (image[band].double().numpy() - values.mean()) / values.std()
            np.testing.assert_allclose(given[place], wanted, atol=2e-5)
            inputs[place].append(given[place][kept])
    for values in map(np.concatenate, inputs):
        assert values.mean() == pytest.approx(0, abs=1e-5)
        assert values.std() == pytest.approx(1, abs=1e-5)


def test_a_range_that_is_given_clips_what_is_standardised() -> None:
    words = [*DATA, *COLOURS, "encoder.prepare.policy=standardise", "encoder.prepare.high=0.2"]
    settings = compose("extract", words)
    made: Any = build_encoder(resolved(settings.encoder, settings.data)).prepare
    values = pixels(settings, 3)
    top = made(torch.full((1, 13, 4, 4), 0.9))[0, 0, 0, 0].item()
    assert top == pytest.approx((0.2 - values.mean()) / values.std(), rel=1e-4)


@pytest.mark.parametrize(("sensor", "middle"), [("SENTINEL1", -12.0), ("LANDSAT8:B10/B11", 290.0)])
def test_what_has_no_data_is_at_the_mean_of_a_standardised_input_and_does_not_move_it(
    monkeypatch: pytest.MonkeyPatch, sensor: str, middle: float
) -> None:
    images = middle + 4 * torch.randn(5, 2, 16, 16)
    images[:, :, :4] = 0  # fit=pad, the edge of a swath
    images[2:, 1] = 0  # one polarisation alone is there
    known = find_sensor(sensor)
    tally = Tally(2)
    for image in images:
        tally.add(moments(image.flatten(1).numpy(), known))
    part = compose("extract", ["encoder=colours", "encoder.prepare.bands=null"]).encoder["prepare"]
    part = part.but(sensor=sensor, policy="standardise")
    monkeypatch.setattr(policy, "_tally", lambda *_: (tally, 0))
    prepare = policy.resolved_input(part, None).build()  # type: ignore[arg-type]
    found = prepare(images)
    assert not found[images == 0].any()
    for band in range(2):
        values = images[:, band].double()
        there = values != 0
        wanted = (values - values[there].mean()) / values[there].std(unbiased=False)
        np.testing.assert_allclose(found[:, band][there], wanted[there], atol=2e-3)
    declared = ImageInput(sensor=known)
    assert bool((declared(images)[images == 0] == -1).all())


@pytest.mark.parametrize("word", ["percentiles", "standardise"])
def test_other_images_in_the_other_splits_change_nothing(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    words = [*DATA, *COLOURS, f"encoder.prepare.policy={word}"]
    settings = compose("extract", words)
    found = resolved(settings.encoder, settings.data).plain()
    others = ["data.splits.val.length=9", "data.splits.test.length=2", "+data.splits.test.seed=9"]
    monkeypatch.setattr(policy, "_known", {})
    other = compose("extract", [*words, *others])
    assert resolved(other.encoder, other.data).plain() == found
    opened = []
    real = type(settings.data).split
    monkeypatch.setattr(policy, "_known", {})
    monkeypatch.setattr(type(settings.data), "split", lambda self, name: opened.append(name) or real(self, name))
    resolved(settings.encoder, settings.data)
    assert opened == ["train"]
    changed = compose("extract", [*words, "+data.splits.train.seed=9"])
    assert resolved(changed.encoder, changed.data).plain() != found


def test_the_statistics_are_taken_once_of_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    real = policy.tally_of
    monkeypatch.setattr(policy, "_known", {})
    monkeypatch.setattr(policy, "tally_of", lambda *given: taken.append(given) or real(*given))
    for words in (MORE, ["encoder.prepare.policy=standardise"], [*MORE, "encoder.prepare.percentiles=[1,99]"]):
        settings = compose("extract", [*DATA, *COLOURS, *words])
        resolved(settings.encoder, settings.data)
    assert len(taken) == 1
    settings = compose("extract", [*DATA, *COLOURS, *MORE, "data.seed=3"])
    resolved(settings.encoder, settings.data)
    assert len(taken) == 2


def test_what_is_declared_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "tally_of", lambda *given: pytest.fail("images were read"))
    for words in ([], ["encoder.prepare.policy=percentiles", "encoder.prepare.low=0", "encoder.prepare.high=0.5"]):
        settings = compose("extract", [*DATA, *COLOURS, *words])
        assert not is_open(settings.encoder)
        assert resolved(settings.encoder, settings.data) is settings.encoder
    small = compose("extract", ["encoder=small"]).encoder
    assert not is_open(small)


def test_an_input_without_its_numbers_is_refused_with_what_to_do() -> None:
    for word in ("percentiles", "standardise"):
        with pytest.raises(UserError, match=f"policy={word} takes its numbers from the training images"):
            ImageInput(policy=word)
    with pytest.raises(UserError, match=r"policy is 'standardize': it can be declared, percentiles or standardise"):
        ImageInput(policy="standardize")  # type: ignore[arg-type]
    settings = compose("extract", [*DATA, *COLOURS, *MORE, "encoder.prepare.percentiles=[90,2]"])
    with pytest.raises(UserError, match="percentiles are 90 and 2: give the lower one first"):
        resolved(settings.encoder, settings.data)


def test_a_band_of_one_value_cannot_be_standardised(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = compose("extract", [*DATA, *COLOURS, "encoder.prepare.policy=standardise"])
    real = type(settings.data).split

    class Flat:
        name = "flat"

        def __init__(self, data: Any) -> None:
            self.data, self.identity = data, {"flat": True}

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, index: int) -> Any:
            sample = self.data[index]
            sample["image"][3] = 0.25
            return sample

    monkeypatch.setattr(type(settings.data), "split", lambda self, name: Flat(real(self, name)))
    with pytest.raises(UserError, match="B04 of the training images has one value everywhere: leave it out"):
        resolved(settings.encoder, settings.data)


def test_spec_store_and_run_record_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*DATA, *COLOURS, *MORE]
    settings = compose("extract", [*words, f"store.path={tmp_path / 'a.zarr'}"])
    numbers = resolved(settings.encoder, settings.data)["prepare"]
    extract.run(settings)
    said = " ".join(capsys.readouterr().err.split())
    assert "input range by percentiles of 6 training samples: B04 0." in said
    store = FeatureStore(str(tmp_path / "a.zarr"))
    low = tuple(numbers["low"])
    assert dict(store.spec.settings)["low"] == low
    assert store.attributes["configuration"]["encoder"]["prepare"]["low"] == numbers["low"]

    run = tmp_path / "run"
    small = ["fusion.projection_dim=16", "trainer=quick", "trainer.max_steps=2", "trainer.batch_size=4"]
    train(compose("train", [*words, *small, f"run={run}"]), quiet=True)
    known = RunFolder(str(run))
    assert known.settings().encoder["prepare"]["low"] == numbers["low"]
    assert dict(BankSpec.from_dict(json.loads((run / "spec.json").read_text())).settings)["low"] == low
    found = evaluate(compose("eval", [f"run={run}"]))
    assert found["test"] == json.loads((run / "result.json").read_text())["test"]


def test_a_comparison_names_runs_by_the_policy_and_the_training_images(tmp_path: Path) -> None:
    from satdifuser.compare.grid import expand
    from satdifuser.compare.shared import Shared
    from satdifuser.settings.commands import CompareSettings

    def keys(*more: str) -> tuple[str, Any]:
        cell = expand(CompareSettings(), [*DATA, *COLOURS, *more])[0]
        shared = Shared(tmp_path, CompareSettings().store)
        return shared.key(cell), shared.features(cell)

    open_one = keys(*MORE)
    assert keys(*MORE) == open_one
    assert keys("encoder.prepare.policy=standardise") != open_one
    assert keys(*MORE, "data.seed=3") != open_one
    facts = sorted((tmp_path / "encoders").iterdir())
    assert len(facts) == 3  # the spec of each has its own numbers
    lows = {str(dict(BankSpec.from_dict(json.loads(path.read_text())["spec"]).settings)["low"]) for path in facts}
    assert len(lows) == 3


def test_pretraining_takes_the_same_words() -> None:
    words = [*DATA, "prepare.policy=percentiles", "prepare.low=null", "prepare.high=null", "prepare.bands=[B08]"]
    settings = compose("pretrain", words)
    found = policy.resolved_input(settings.prepare, settings.data)
    assert found["high"][0] == pytest.approx(np.percentile(pixels(settings, 7), 99), rel=5e-4, abs=5e-5)
    assert found.build().highs == tuple(found["high"])


@pytest.mark.slow
@pytest.mark.parametrize("share", ["true", "false"])
def test_a_comparison_runs_with_a_range_of_the_training_images(tmp_path: Path, share: str) -> None:
    from satdifuser.compare.command import run as compare

    words = [*DATA, *COLOURS, *MORE, "task=classification", "fusion=mean,gw", "trainer=quick", "trainer.max_steps=2"]
    compare([*words, "seed=0", "resamples=100", f"share_features={share}", f"output={tmp_path}"])
    assert (tmp_path / "report.html").is_file()
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    assert all((run / "result.json").is_file() for run in runs)
    lows = [dict(BankSpec.from_dict(json.loads((run / "spec.json").read_text())).settings)["low"] for run in runs]
    settings = compose("extract", [*DATA, *COLOURS, *MORE])
    assert lows == [tuple(resolved(settings.encoder, settings.data)["prepare"]["low"])] * 2
