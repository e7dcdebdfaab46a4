"""A plain loop over a store: every sample once an epoch, in the trainer's order, as the split itself gives them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from satdifuser.data.batches import ShuffledBatches, loader
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, collate


@pytest.fixture
def store(made: Any, tmp_path: Path) -> FeatureStore:
    made.write(tmp_path / "features.zarr")
    return FeatureStore(tmp_path / "features.zarr")


def test_in_order_it_is_the_split_itself(made: Any, store: FeatureStore, reading: str) -> None:
    batches = list(store.loader("train", batch_size=3))
    assert [len(batch["id"]) for batch in batches] == [3, 3, 1]
    assert len(store.loader("train", batch_size=3)) == 3
    assert [name for batch in batches for name in batch["id"]] == made.ids["train"]
    rows = made.rows("train")
    for tap in made.spec.taps:
        torch.testing.assert_close(torch.cat([batch["bank"][tap] for batch in batches]), made.bank[tap][rows])
    for name, values in made.labels.items():
        torch.testing.assert_close(torch.cat([batch[name] for batch in batches]), values[rows])


def test_shuffled_it_has_every_sample_once_an_epoch_and_another_order_the_next(made: Any, store: FeatureStore) -> None:
    batches = store.loader("train", batch_size=2, shuffle=True, num_workers=2)
    first, second = ([name for batch in batches for name in batch["id"]] for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(made.ids["train"])
    assert first != second
    again = store.loader("train", batch_size=2, shuffle=True)
    assert [name for batch in again for name in batch["id"]] == first
    other = store.loader("train", batch_size=2, shuffle=True, seed=1)
    assert [name for batch in other for name in batch["id"]] != first


@pytest.mark.parametrize("drop_last", [True, False])
def test_the_batches_are_those_of_the_trainer(store: FeatureStore, drop_last: bool) -> None:
    data = store.split("train")
    endless = ShuffledBatches(len(data), 2, seed=5, keep_last=not drop_last)
    count = 3 if drop_last else 4
    trainers = [batch["id"] for batch in loader(data, islice(iter(endless), 2 * count))]  # type: ignore[arg-type]
    ours = store.loader("train", batch_size=2, shuffle=True, drop_last=drop_last, seed=5)
    assert [batch["id"] for _ in range(2) for batch in ours] == trainers
    assert len(ours) == count


def test_a_smaller_spec_reads_fewer_taps_and_a_large_batch_is_the_whole_split(made: Any, store: FeatureStore) -> None:
    spec = made.spec.select(timesteps=[21])
    (batch,) = store.loader("val", batch_size=100, spec=spec, drop_last=True)
    assert batch["bank"].spec == spec
    assert batch["bank"].batch_size == 3


def test_torchs_own_loader_takes_a_split_with_the_collate_function(made: Any, store: FeatureStore) -> None:
    data: Any = store.split("test")
    batches = list(DataLoader(data, batch_size=3, collate_fn=collate))
    assert [name for batch in batches for name in batch["id"]] == made.ids["test"]
    tap = made.spec.taps[1]
    torch.testing.assert_close(torch.cat([batch["bank"][tap] for batch in batches]), made.bank[tap][made.rows("test")])
    torch.testing.assert_close(torch.cat([b["label"] for b in batches]), made.labels["label"][made.rows("test")])


def test_samples_that_do_not_match_are_told(store: FeatureStore) -> None:
    data = store.split("test")
    one, two = data[0], data[1]
    del two["mask"]
    with pytest.raises(UserError, match="differ in mask: only one has it"):
        collate([one, two])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"split": "trian"}, "no split 'trian': .*did you mean train"),
        ({"split": "train", "batch_size": 0}, "batch_size is 0: give a whole number of 1 or more"),
        ({"split": "train", "num_workers": -1}, "num_workers is -1"),
    ],
)
def test_what_cannot_be_is_told(store: FeatureStore, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        store.loader(**given)
