"""Dates folded into an encoder's batch: each is read as if it were alone, and what is not there is not read."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.config import compose
from satdifuser.data.batches import OrderedBatches, collate, loader
from satdifuser.data.dates import day_text, one_of
from satdifuser.data.inputs import ImageInput, SampleCheck, sample_check
from satdifuser.engine.features import features
from satdifuser.errors import UserError
from satdifuser.pooling import Pooling
from satdifuser.temporal import TemporalMean, encode, read

DATES = 4
CPU = torch.device("cpu")


class Watching(nn.Module):
    """An encoder that gives its images back, less by their day and number of metadata, and notes what it was asked."""

    def __init__(self, takes_dates: bool = False) -> None:
        super().__init__()
        self.takes_dates = takes_dates
        self.spec = BankSpec((Tap("pixels", None, 0, 13, 1),), "watching", "none", (6, 8))
        self.asked: list[tuple[int, list[str], Any, Any]] = []

    def forward(
        self, images: Tensor, *, sample_ids: Sequence[str], metadata: Tensor | None = None, **given: Any
    ) -> FeatureBank:
        assert (set(given) == {"dates"}) == self.takes_dates
        dates = given.get("dates")
        self.asked.append((len(images), list(sample_ids), metadata, dates))
        return FeatureBank(
            self.spec, {self.spec.taps[0]: images + (0 if metadata is None else metadata[:, :1, None, None])}
        )


def batch_of(count: int = 3, blanks: bool = True) -> dict[str, Any]:
    dates = torch.randint(0, 30000, (count, DATES))
    images = torch.rand(count, DATES, 13, 6, 8) * 0.3
    if blanks:
        dates[0, 2:] = -1
        dates[-1, 3] = -1
        images[dates < 0] = 0
    return {"id": [f"tile-{i}" for i in range(count)], "image": images, "dates": dates}


@pytest.mark.parametrize("grad", [False, True])
def test_each_date_is_read_as_if_it_were_alone_and_the_blank_ones_are_not(grad: bool) -> None:
    batch, encoder = batch_of(), Watching(takes_dates=True)
    batch["metadata"] = torch.rand(3, 7)
    with torch.set_grad_enabled(grad):
        bank = read(encoder, batch)
    assert bank.spec == BankSpec(encoder.spec.taps, "watching", "none", (6, 8), dates=DATES)
    wanted = batch["image"] + batch["metadata"][:, :1, None, None, None]
    wanted[batch["dates"] < 0] = 0
    assert torch.equal(bank[bank.spec.taps[0]], wanted)
    counts = [count for count, *_ in encoder.asked]
    assert counts == ([9] if grad else [3, 3, 3])  # no more at once than there are samples
    names = [name for _, ids, *_ in encoder.asked for name in ids]
    assert names == ["tile-0"] * 2 + ["tile-1"] * 4 + ["tile-2"] * 3
    told = torch.cat([dates for *_, dates in encoder.asked])
    assert told.tolist() == batch["dates"][batch["dates"] >= 0].tolist()


def test_metadata_may_be_of_each_date() -> None:
    batch = {**batch_of(), "metadata": torch.rand(3, DATES, 7)}
    found = read(Watching(), batch)[Watching().spec.taps[0]]
    wanted = batch["image"] + batch["metadata"][..., :1, None, None]
    wanted[batch["dates"] < 0] = 0
    assert torch.equal(found, wanted)


def test_an_image_with_one_date_tells_it_to_those_who_ask() -> None:
    batch = batch_of(blanks=False)
    single = {**batch, "image": batch["image"][:, 0], "dates": batch["dates"][:, :1]}
    encoder = Watching(takes_dates=True)
    assert read(encoder, single).spec.dates is None
    assert torch.equal(encoder.asked[0][3], batch["dates"][:, 0])
    del single["dates"]
    read(encoder, single)
    assert encoder.asked[1][3] is None
    read(Watching(), single)  # who does not ask is not told


def test_series_without_dates_are_read_whole() -> None:
    batch, encoder = batch_of(blanks=False), Watching(takes_dates=True)
    del batch["dates"]
    assert torch.equal(read(encoder, batch)[encoder.spec.taps[0]], batch["image"])
    assert encoder.asked[0][3] is None


def test_gradients_go_through_to_the_encoder() -> None:
    batch, encoder = batch_of(), Watching()
    images = batch["image"].requires_grad_()
    bank = TemporalMean(read(encoder, batch).spec)(read(encoder, batch), batch["dates"])
    bank[encoder.spec.taps[0]].sum().backward()
    share = 1.0 / (batch["dates"] >= 0).sum(1)
    wanted = torch.where(batch["dates"] >= 0, share[:, None], 0.0)[..., None, None, None].expand_as(images)
    torch.testing.assert_close(images.grad, wanted)


@pytest.mark.parametrize("mode", ["noise", "inversion"])
def test_all_dates_of_a_sample_get_the_same_noise_so_that_only_change_differs(mode: str) -> None:
    words = [f"encoder.mode={mode}", "encoder.steps=4", "encoder.timesteps=[300]", "encoder.taps=[mid_block]"]
    encoder = compose("extract", ["data.size=64", *words]).encoder.build().eval()
    batch = {"id": ["a", "b"], "image": torch.rand(2, 1, 13, 64, 64).mul(0.3).repeat(1, 3, 1, 1, 1)}
    batch["image"][1, 2, :, 20:30, 20:30] *= 0.5
    with torch.inference_mode():
        bank = features(encoder, batch, CPU)
        alone = encoder(batch["image"][:, 2], sample_ids=batch["id"])
    for tap, maps in bank.items():
        assert torch.equal(maps[0, 0], maps[0, 1])
        assert torch.equal(maps[0, 0], maps[0, 2])
        assert not torch.equal(maps[1, 0], maps[1, 2])
        torch.testing.assert_close(maps[:, 2], alone[tap], rtol=1e-4, atol=1e-5)


def test_latents_of_series_give_the_features_of_their_images() -> None:
    words = ["encoder.timesteps=[21]", "encoder.taps=[mid_block]"]
    encoder = compose("extract", words).encoder.build().eval()
    batch = batch_of(2)
    batch["image"] = torch.rand(2, DATES, 13, 64, 64) * 0.3
    with torch.inference_mode():
        latents = encode(encoder, batch)
        live, later = read(encoder, batch), read(encoder, {**batch, "bank": latents})
    assert latents.spec.dates == live.spec.dates == DATES
    for tap in live.spec.taps:
        torch.testing.assert_close(later[tap], live[tap])
        assert not later[tap][0, 2:].any()


@pytest.mark.parametrize("name", ["mean", "max", "moments", "grid2"])
def test_pooling_is_of_each_date(name: str) -> None:
    bank, pooling = read(Watching(), batch_of()), Pooling(name)
    found = pooling.bank(bank)
    assert found.spec.dates == DATES
    tap = bank.spec.taps[0]
    for date in range(DATES):
        alone = pooling.bank(FeatureBank(Watching().spec, {tap: bank[tap][:, date]}))
        assert torch.equal(found[found.spec.taps[0]][:, date], alone[alone.spec.taps[0]])


CHECK = SampleCheck(ImageInput(["red", "green", "blue"]), (6, 8))


def sample_of(**changes: Any) -> dict[str, Any]:
    batch = batch_of(1, blanks=False)
    return {"id": "tile-9", "image": batch["image"][0], "dates": batch["dates"][0]} | changes


def test_a_check_looks_at_each_date_and_names_it() -> None:
    assert CHECK(sample_of()) is None
    spoilt = sample_of(dates=torch.tensor([18000, 18262, -1, -1]))
    spoilt["image"][1, 3, 2, 2] = torch.nan
    assert str(CHECK(spoilt)).startswith("at 2020-01-01 has NaN or infinite values in 1 pixels")
    spoilt["image"][1] = 0.1
    spoilt["image"][2] = torch.nan  # is not there
    assert CHECK(spoilt) is None
    del spoilt["dates"]
    assert str(CHECK(spoilt)).startswith("at image 3 of its series has NaN")


def test_a_check_tells_dates_that_are_none() -> None:
    assert "has no image at any of its dates" in str(CHECK(sample_of(dates=torch.full((DATES,), -1))))
    assert "has 4 images and dates of the shape (3,)" in str(CHECK(sample_of(dates=torch.zeros(3, dtype=torch.long))))
    assert "torch.float32" in str(CHECK(sample_of(dates=torch.zeros(DATES))))
    one = SampleCheck(CHECK.prepare, CHECK.size, series=False)
    assert str(one(sample_of())).startswith("has 4 dates, and here samples of one image are read")


def test_a_batch_of_which_nothing_is_there_is_an_error() -> None:
    batch = batch_of(1)
    with pytest.raises(UserError, match="sample tile-0 has no image at any of its dates"):
        read(Watching(), {**batch, "dates": torch.full((1, DATES), -1)})
    with pytest.raises(UserError, match=r"sample tile-0 has 4 images and \(3,\) dates"):
        read(Watching(), {**batch, "dates": batch["dates"][:, :3]})


def test_pretraining_says_that_it_reads_single_images() -> None:
    from satdifuser.data.synthetic import SyntheticScenes
    from satdifuser.pretrain.images import Source

    source = Source(SyntheticScenes("train", 4, size=16, dates=3), ImageInput(["red", "green", "blue"]), 16)
    with pytest.raises(UserError, match=r"^sample scene-0-0 has 3 dates, and here samples of one image are read"):
        source.some(2)
    with pytest.raises(UserError, match=r"^sample scene-0-0 has 3 dates"):
        next(iter(loader(source.data, OrderedBatches(4, 2), check=source.check)))


def test_series_of_different_lengths_are_told_to_be_made_one() -> None:
    long, short = sample_of(), sample_of(id="tile-10")
    short["image"], short["dates"] = short["image"][:2], short["dates"][:2]
    with pytest.raises(UserError, match=r"have as many dates: set data.dates"):
        collate([long, short])  # type: ignore[list-item]


def test_days_are_those_of_the_calendar() -> None:
    for day in torch.randint(-100000, 100000, (50,)).tolist():
        assert day_text(day) == (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
    assert day_text(10**9) == "day 1000000000"


def test_the_picture_of_a_series_is_its_latest() -> None:
    sample = sample_of(dates=torch.tensor([18000, 18400, 18300, -1]))
    assert torch.equal(one_of(sample), sample["image"][1])
    del sample["dates"]
    assert torch.equal(one_of(sample), sample["image"][3])
    assert one_of({"image": sample["image"][0]}) is not None


def test_every_kind_of_encoder_reads_series() -> None:
    batch = batch_of(2)
    batch["image"] = torch.rand(2, DATES, 13, 64, 64) * 0.3
    for name in ("unet", "small_vit", "cnn", "colours"):
        encoder = compose("extract", [f"encoder={name}"]).encoder.build().eval()
        check = sample_check(encoder)
        assert check is None or check({"id": "a", "image": batch["image"][1], "dates": batch["dates"][1]}) is None
        with torch.inference_mode():
            bank = features(encoder, batch, CPU)
            alone = encoder(batch["image"][:, 1], sample_ids=batch["id"])
        for tap in bank.spec.taps:
            torch.testing.assert_close(bank[tap][:, 1], alone[tap], rtol=1e-4, atol=1e-4)
            assert not bank[tap][0, 2:].any()
