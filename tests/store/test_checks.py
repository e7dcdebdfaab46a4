"""What does not fit the plan or cannot be kept is refused, by its sample, tap or label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, StoreWriter

FORMS = [("float32", "maps"), ("float16", "maps"), ("bfloat16", "maps"), ("int8", "maps"), ("float16", "grid2")]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, plan: Any, batches: Sequence[Any]) -> None:
    with StoreWriter(path, plan) as writer:
        for bank, batch in batches:
            writer.append(bank, batch)


def test_fewer_samples_than_promised_are_an_error(tmp_path: Path, made: Any) -> None:
    with (
        pytest.raises(UserError, match=r"promised 14 samples, but fewer came"),
        StoreWriter(tmp_path / "store", made.plan()) as writer,
    ):
        writer.append(*made.batch(slice(0, 13)))
    assert left_in(tmp_path) == ["store.partial"]


def test_more_samples_than_promised_are_an_error(tmp_path: Path, made: Any) -> None:
    batches = [made.batch(slice(0, 14)), made.batch(slice(0, 1))]
    with pytest.raises(UserError, match=r"promised 14 samples, but more came"):
        write(tmp_path / "store", made.plan(), batches)
    assert left_in(tmp_path) == ["store.partial"]


def test_a_plan_without_samples_is_refused_with_the_reason_why_they_were_skipped(make: Any) -> None:
    with pytest.raises(UserError, match="no sample is left"):
        make({}).plan()
    with pytest.raises(UserError, match=r"all 2 were skipped.*cut short"):
        make({"train": 0}).plan(skipped=[{"id": "a", "reason": "cut short"}, {"id": "b", "reason": "empty"}])


def test_samples_in_another_order_than_the_plans_are_refused_by_name(tmp_path: Path, made: Any) -> None:
    bank, batch = made.batch(slice(0, 2))
    batch["id"] = batch["id"][::-1]
    with (
        pytest.raises(UserError) as caught,
        StoreWriter(tmp_path / "store", made.plan()) as writer,
    ):
        writer.append(bank, batch)
    assert f"expects sample {made.names[0]} next, but got {made.names[1]}" in str(caught.value)


def test_a_bank_of_another_spec_is_refused_by_its_tap(tmp_path: Path, made: Any, make: Any) -> None:
    other = make(spec=replace(made.spec, taps=made.spec.taps[:4]))
    with (
        pytest.raises(UserError, match=r"up\.0@161"),
        StoreWriter(tmp_path / "store", made.plan()) as writer,
    ):
        writer.append(other.batch(slice(0, 2))[0], made.batch(slice(0, 2))[1])


@pytest.mark.parametrize("name", ["id", "label", "mask", "image"])
def test_a_batch_with_another_number_of_ids_labels_or_images_than_maps_is_refused(
    tmp_path: Path, made: Any, name: str
) -> None:
    bank, batch = made.batch(slice(0, 3))
    batch[name] = batch[name][:2]
    with pytest.raises((UserError, IndexError)), StoreWriter(tmp_path / "store", made.plan()) as writer:
        writer.append(bank, batch)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("second", [2, 5], ids=["in a unit", "in another unit"])
@pytest.mark.parametrize("without", ["first", "second"])
def test_labels_that_only_some_samples_have_are_refused(tmp_path: Path, made: Any, second: int, without: str) -> None:
    """They would otherwise be read as the labels of other samples."""
    batches = [made.batch(slice(0, second)), made.batch(slice(second, 14))]
    del batches[0 if without == "first" else 1][1]["label"]
    with pytest.raises(UserError, match="'label'"):
        write(tmp_path / "store", made.plan(), batches)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("second", [2, 4], ids=["in a unit", "in another unit"])
def test_masks_of_two_sizes_are_refused_by_both(tmp_path: Path, made: Any, second: int) -> None:
    batches = [made.batch(slice(0, second)), made.batch(slice(second, 14))]
    batches[1][1]["mask"] = batches[1][1]["mask"].transpose(1, 2)
    with pytest.raises(UserError, match=r"mask \(32, 33\), but .* has \(33, 32\)"):
        write(tmp_path / "store", made.plan(), batches)


@pytest.mark.parametrize(
    ("dtype", "bad"), [("float16", 65_520.0), ("float16", -1e9), ("bfloat16", 3.4e38), ("float16", 1e30)]
)
@pytest.mark.parametrize("sample", [0, 5])
def test_a_value_that_a_type_cannot_hold_names_sample_tap_and_remedy(
    tmp_path: Path, made: Any, dtype: str, bad: float, sample: int
) -> None:
    made.bank.map("up.0", 161)[sample, 2, 3, 1] = bad
    with pytest.raises(UserError, match=rf"up\.0@161.*{dtype}.*store\.dtype=.*float32") as caught:
        made.write(tmp_path / "store", made.plan(dtype), most=6)
    assert made.names[sample] in str(caught.value)
    assert sum(name in str(caught.value) for name in made.names) == 1
    assert left_in(tmp_path) == ["store.partial"]


def test_the_largest_half_is_kept(tmp_path: Path, made: Any) -> None:
    made.bank.map("up.0", 161)[0, 0, 0, 0] = 65504.0
    made.write(tmp_path / "store", made.plan("float16"))
    assert FeatureStore(tmp_path / "store").split("train")[0]["bank"].map("up.0", 161)[0, 0, 0, 0] == 65504


@pytest.mark.parametrize(("dtype", "keep"), [*FORMS, ("float32", "max"), ("float32", "mean")])
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_features_that_are_not_finite_are_refused_without_blaming_their_type(
    tmp_path: Path, made: Any, dtype: str, keep: str, bad: float
) -> None:
    made.bank.map("up.0", 161)[1, 0, 0, 0] = bad
    with pytest.raises(UserError, match=r"NaN or infinite values at tap up\.0@161") as caught:
        made.write(tmp_path / "store", made.plan(dtype, keep))
    assert made.names[1] in str(caught.value)
    assert "store.dtype" not in str(caught.value)
