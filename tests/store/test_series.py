"""Stores of samples of several dates: what comes back, how it lies there, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.bank import FeatureBank
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, Form
from satdifuser.store.merge import merge, prune
from satdifuser.store.verify import verify

DATES = 3
Make = Callable[..., Any]


@pytest.fixture
def dated(make: Make, spec: Any) -> Any:
    """Made-up samples of three dates, of which some are not there; what their images hold is of no meaning."""
    found = make(spec=replace(spec, dates=DATES))
    count = len(found.names)
    dates = torch.randint(0, 20000, (count, DATES))
    dates[torch.rand(count, DATES) < 0.3] = -1
    dates[:, 0] = 18000
    found.labels["dates"] = dates
    found.labels["metadata"] = torch.rand(count, DATES, 7)
    found.images = torch.randn(count, DATES, 4, 5, 6) * (torch.rand(count, DATES, 1, 5, 6) > 0.2)
    for tap in found.spec.taps:
        found.bank[tap][dates < 0] = 0
    return found


def same_rows(store: FeatureStore, dated: Any, split: str, form: Form) -> None:
    batch = store.split(split).batch(range(dated.counts[split]))
    wanted, labels = dated.batch(dated.rows(split))
    assert torch.equal(batch["dates"], labels["dates"])
    assert torch.equal(batch["metadata"], labels["metadata"])
    for tap in dated.spec.taps:
        maps = wanted[tap] if form.pooling is None else form.pooling.maps(wanted[tap])
        got = batch["bank"].map(tap.name, tap.timestep)
        if form.dtype == "int8":  # half a step of each date's own channel
            step = maps.abs().amax((-2, -1), keepdim=True) / 127
            assert bool(((got - maps).abs() <= 0.501 * step).all())
        else:
            torch.testing.assert_close(got, maps.to(got.dtype), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("dtype", "keep"),
    [
        *(("float32", "maps"), ("float16", "maps"), ("bfloat16", "maps"), ("int8", "maps")),
        *(("float32", "mean"), ("float16", "max"), ("float32", "moments"), ("int8", "grid2")),
    ],
)
def test_what_was_written_comes_back_with_its_dates(
    dated: Any, tmp_path: Path, reading: str, dtype: str, keep: str
) -> None:
    form = Form(dtype, keep)
    dated.write(tmp_path / "s.zarr", dated.plan(dtype, keep))
    store = FeatureStore(tmp_path / "s.zarr")
    assert store.spec == form.spec(dated.spec)
    assert store.spec.dates == DATES
    for split in dated.counts:
        same_rows(store, dated, split, form)
    assert verify(str(tmp_path / "s.zarr")) == []


def test_int8_has_a_scale_for_each_date_and_channel(dated: Any, tmp_path: Path) -> None:
    """A bright date would else leave no levels for a dark one."""
    for tap in dated.spec.taps:
        dated.bank[tap][:, 0] *= 1e4
    dated.write(tmp_path / "s.zarr", dated.plan("int8"))
    store = FeatureStore(tmp_path / "s.zarr")
    columns = {column.name: column for column in store.columns}
    assert columns["up.0@21.scale"].shape == (DATES, 3)
    assert columns["up.0@21.scale"].dimensions == ("sample", "time", "channel_3")
    same_rows(store, dated, "train", Form("int8"))


def test_other_tools_find_dates_as_a_dimension(dated: Any, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    dated.write(tmp_path / "s.zarr")
    opened = xarray.open_zarr(tmp_path / "s.zarr", consolidated=True)
    assert opened["mid.block@21"].dims == ("sample", "time", "channel_5", "y_2", "x_3")
    assert opened["dates"].dims == ("sample", "time")
    assert opened["metadata"].dims == ("sample", "time", "number")
    assert opened["dates"].values.tolist() == dated.labels["dates"].tolist()
    later = opened["mid.block@21"].where(opened["dates"] >= 0).mean("time").values
    maps, here = dated.bank.map("mid.block", 21), dated.labels["dates"] >= 0
    wanted = (maps * here[..., None, None, None]).sum(1) / here.sum(1)[:, None, None, None]
    np.testing.assert_allclose(later, wanted, rtol=1e-5, atol=1e-6)


def test_band_statistics_are_over_all_dates_that_are_there(dated: Any, tmp_path: Path) -> None:
    dated.images[dated.labels["dates"] < 0] = 1e6
    dated.write(tmp_path / "s.zarr")
    found = FeatureStore(tmp_path / "s.zarr").attributes["bands"]
    for split in dated.counts:
        rows = dated.rows(split)
        here = dated.labels["dates"][rows] >= 0
        pixels = dated.images[rows][here].double().permute(0, 2, 3, 1).reshape(-1, 4)
        pixels = pixels[(pixels != 0).any(1)]
        assert found[split]["pixels"] == len(pixels)
        assert found[split]["mean"] == pytest.approx(pixels.mean(0).tolist(), rel=1e-6)
        assert found[split]["std"] == pytest.approx(pixels.std(0, correction=0).tolist(), rel=1e-6)
        assert found[split]["max"] == pytest.approx(pixels.amax(0).tolist(), rel=1e-6)


@pytest.mark.parametrize("stop", [1, 5, 9, 13])
def test_a_series_that_was_stopped_goes_on_to_the_same_bytes(
    dated: Any, tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]], stop: int
) -> None:
    dated.write(tmp_path / "whole.zarr", dated.plan("int8"))
    dated.begin(tmp_path / "part.zarr", stop, dated.plan("int8"))
    dated.write(tmp_path / "part.zarr", dated.plan("int8"))
    assert files_of(tmp_path / "part.zarr") == files_of(tmp_path / "whole.zarr")


def test_a_store_of_other_dates_is_another_plan(dated: Any, made: Any, tmp_path: Path) -> None:
    dated.begin(tmp_path / "s.zarr", 5)
    with pytest.raises(UserError, match=r"begun with other settings.*dates: 3 and None"):
        made.write(tmp_path / "s.zarr")


def test_one_row_that_is_damaged_is_named(dated: Any, tmp_path: Path) -> None:
    dated.write(tmp_path / "s.zarr")
    store = FeatureStore(tmp_path / "s.zarr")
    unit = store.units[1]
    key, _ = store.shard("up.1@161", unit)
    column = next(c for c in store.columns if c.name == "up.1@161")
    with (tmp_path / "s.zarr" / key).open("r+b") as file:
        file.seek(column.row_bytes - 1)
        byte = file.read(1)
        file.seek(column.row_bytes - 1)
        file.write(bytes([byte[0] ^ 1]))
    (fault,) = verify(str(tmp_path / "s.zarr"))
    assert f"tap up.1@161 of 1 of its {unit.count} samples ({store.ids()[unit.first]})" in fault


def test_series_are_joined_and_pruned_with_their_dates(dated: Any, make: Make, tmp_path: Path) -> None:
    other = make(spec=dated.spec)
    other.labels["dates"] = torch.randint(0, 9, (len(other.names), DATES))
    other.labels["metadata"] = torch.rand(len(other.names), DATES, 7)
    other.images = torch.rand(len(other.names), DATES, 4, 5, 6)
    other.identity = dated.identity
    dated.write(tmp_path / "a.zarr")
    other.write(tmp_path / "b.zarr")
    merge(tmp_path / "both.zarr", [str(tmp_path / "a.zarr"), str(tmp_path / "b.zarr")])
    both = FeatureStore(tmp_path / "both.zarr")
    batch = both.split("val").batch(range(6))
    wanted = torch.cat([made.labels["dates"][made.rows("val")] for made in (dated, other)])
    assert torch.equal(batch["dates"], wanted)
    prune(str(tmp_path / "both.zarr"), tmp_path / "few.zarr", [161], ["up.0"])
    few = FeatureStore(tmp_path / "few.zarr")
    assert few.spec.dates == DATES
    assert torch.equal(few.split("val").batch([0])["bank"].map("up.0", 161), batch["bank"].map("up.0", 161)[:1])


def test_what_is_of_one_image_is_not_joined_to_series(dated: Any, made: Any, tmp_path: Path) -> None:
    dated.write(tmp_path / "a.zarr")
    made.write(tmp_path / "b.zarr")
    with pytest.raises(UserError, match="cannot be joined: dates: 3 and None"):
        merge(tmp_path / "both.zarr", [str(tmp_path / "a.zarr"), str(tmp_path / "b.zarr")])
    with pytest.raises(UserError, match=r"holds other features than asked for .*dates: 3 and None"):
        FeatureStore(tmp_path / "a.zarr").require(made.spec)


def test_series_without_dates_are_kept_without_them(dated: Any, tmp_path: Path) -> None:
    del dated.labels["dates"]
    dated.write(tmp_path / "s.zarr")
    store = FeatureStore(tmp_path / "s.zarr")
    assert not store.has("dates")
    assert store.split("val").batch([0])["bank"].spec.dates == DATES


def test_a_store_of_single_images_says_nothing_of_dates(made: Any, tmp_path: Path) -> None:
    made.write(tmp_path / "s.zarr")
    document = json.loads((tmp_path / "s.zarr" / "zarr.json").read_text())
    assert "dates" not in document["attributes"]["spec"]
    assert "dates" not in document["consolidated_metadata"]["metadata"]
    assert "time" not in json.dumps(
        [v["dimension_names"] for v in document["consolidated_metadata"]["metadata"].values()]
    )


def test_an_image_with_one_date_keeps_it(made: Any, tmp_path: Path) -> None:
    made.labels["dates"] = torch.randint(0, 20000, (len(made.names), 1))
    made.write(tmp_path / "s.zarr")
    store = FeatureStore(tmp_path / "s.zarr")
    assert store.spec.dates is None
    assert torch.equal(store.split("test").batch(range(4))["dates"], made.labels["dates"][made.rows("test")])


def test_long_series_have_their_dates_in_files_of_their_own(make: Make, small_spec: Any, tmp_path: Path) -> None:
    """Of more than 128 dates the labels of a sample take over a kilobyte, and are read row by row."""
    long = make(spec=replace(small_spec, dates=150))
    long.labels = {"dates": torch.randint(0, 20000, (len(long.names), 150))}
    long.images = torch.rand(len(long.names), 150, 4, 2, 2)
    long.write(tmp_path / "s.zarr")
    store = FeatureStore(tmp_path / "s.zarr")
    assert store.wide("dates") is not None
    assert torch.equal(store.split("train").batch(range(7))["dates"], long.labels["dates"][:7])


def test_numbers_that_are_none_are_found_in_any_date(dated: Any, tmp_path: Path) -> None:
    tap = dated.spec.taps[0]
    maps = {other: dated.bank[other].clone() for other in dated.spec.taps}
    maps[tap][4, 2, 1, 0, 0] = torch.nan
    dated.bank = FeatureBank(dated.spec, maps)
    with pytest.raises(UserError, match=r"the encoder gave NaN or infinite values at tap mid\.block@21"):
        dated.write(tmp_path / "s.zarr", most=1)
