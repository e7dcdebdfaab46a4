"""Stores joined are their plain concatenation, split by split."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from satdifuser.bank import BankSpec
from satdifuser.data.base import Labels
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, Form, StorePlan, StoreWriter
from satdifuser.store.local import LocalFiles
from satdifuser.store.merge import merge
from satdifuser.store.verify import verify

FORMS = [
    ("float32", "maps", 300),
    ("float16", "maps", 2**28),
    ("bfloat16", "maps", 300),
    ("int8", "maps", 300),
    ("float16", "mean", 2**28),
]
COUNTS = [{"train": 7, "val": 3}, {"test": 4, "train": 5}, {"val": 2, "extra": 1, "train": 2}]
Files = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def several(make: Any) -> list[Any]:
    return [renamed(make(counts), f"{number}~") for number, counts in enumerate(COUNTS)]


def renamed(made: Any, prefix: str) -> Any:
    """The same samples by other names, so that those of several stores differ."""
    made.names = [prefix + name for name in made.names]
    each = iter(made.names)
    made.ids = {split: [next(each) for _ in names] for split, names in made.ids.items()}
    return made


def written(tmp_path: Path, several: list[Any], *form: str, **options: Any) -> list[str]:
    paths = [tmp_path / f"part{number}" for number in range(len(several))]
    for made, path in zip(several, paths, strict=True):
        made.write(path, made.plan(*form, shard_bytes=random.choice([1, 700, 2000]), **options))
    return [str(path) for path in paths]


def raw(path: str | Path, name: str, split: str) -> Any:
    """An array's rows of a split as Zarr reads them, without our reader."""
    group: Any = zarr.open_group(path, mode="r")
    return group[name][:][group["split"][:] == list(group.attrs["splits"]).index(split)]


def names(path: str | Path, split: str) -> list[str]:
    return [bytes(row).rstrip(b"\0").decode() for row in raw(path, "id", split)]


def refused(match: str, work: Callable[[], Any]) -> None:
    with pytest.raises(UserError, match=match) as caught:
        work()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("dtype", "keep", "shard_bytes"), FORMS)
def test_each_split_is_the_concatenation_of_that_split_of_all_bit_for_bit(
    tmp_path: Path,
    several: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    keep: str,
    shard_bytes: int,
) -> None:
    paths = written(tmp_path, several, dtype, keep)
    if shard_bytes < 2**28:  # parts of several stores in one file and one store in several files, read in small steps
        monkeypatch.setattr("satdifuser.store.merge.MEMORY", 1000)
        monkeypatch.setattr(
            "satdifuser.store.merge.StorePlan", lambda *a, **k: StorePlan(*a, **k, shard_bytes=shard_bytes)
        )
    merge(tmp_path / "all", paths)
    assert verify(str(tmp_path / "all")) == []
    assert not (tmp_path / "all.partial").exists()
    store = FeatureStore(tmp_path / "all")
    assert store.splits == ["train", "val", "test", "extra"]
    assert (store.spec, store.form, store.labels) == (
        Form(dtype, keep).spec(several[0].spec),
        Form(dtype, keep),
        several[0].classes,
    )
    arrays = {name for name, _ in zarr.open_group(paths[0], mode="r").arrays()} - {"id", "split", "checksum"}
    for split in store.splits:
        have = [number for number, counts in enumerate(COUNTS) if split in counts]
        assert names(tmp_path / "all", split) == [name for n in have for name in several[n].ids[split]]
        for name in arrays:
            wanted = np.concatenate([raw(paths[n], name, split) for n in have])
            found = raw(tmp_path / "all", name, split)
            assert found.tobytes() == wanted.astype(found.dtype).tobytes(), name
            assert found.dtype == wanted.dtype, name
        data = store.split(split)
        batch = data.batch(range(len(data)))
        for name in several[0].labels:
            wanted = torch.cat([several[n].labels[name][several[n].rows(split)] for n in have])
            assert torch.equal(batch[name], wanted)


def test_band_statistics_are_those_of_all_images(tmp_path: Path, several: list[Any]) -> None:
    for made in several:
        made.images = made.images * 0.01 + (made.images != 0) * 7.5  # a small spread around a large mean
    merge(tmp_path / "all", written(tmp_path, several))
    bands: Any = zarr.open_group(tmp_path / "all", mode="r").attrs["bands"]
    assert bands["names"] == ["B2", "B3", "B4", "B8"]
    for split in ("train", "val", "test", "extra"):
        images = np.concatenate([made.images[made.rows(split)].numpy() for made in several if split in made.counts])
        pixels = images.astype(np.float64).transpose(1, 0, 2, 3).reshape(4, -1)
        pixels = pixels[:, np.any(pixels != 0, axis=0)]
        assert bands[split]["pixels"] == pixels.shape[1]
        for key, values in {"mean": pixels.mean(1), "min": pixels.min(1), "max": pixels.max(1)}.items():
            np.testing.assert_allclose(bands[split][key], values, rtol=1e-8)
        np.testing.assert_allclose(bands[split]["std"], pixels.std(1), rtol=1e-5)


@pytest.mark.parametrize("bands", [["B2", "B3", "B4"], ["B2", "B3", "B4", "B9"]])
def test_statistics_of_other_bands_are_not_mixed(tmp_path: Path, several: list[Any], bands: list[str]) -> None:
    one, other = several[:2]
    one.write(tmp_path / "one")
    other.images = other.images[:, : len(bands)]
    other.write(tmp_path / "other", other.plan(bands=bands))
    refusal = ""
    try:
        merge(tmp_path / "all", [str(tmp_path / "one"), str(tmp_path / "other")])
    except UserError as error:
        refusal = str(error)
    left_out = not refusal and "bands" not in zarr.open_group(tmp_path / "all", mode="r").attrs
    assert left_out or "bands" in refusal


def test_stores_without_statistics_join_without_them(tmp_path: Path, several: list[Any]) -> None:
    one, other = several[:2]
    one.write(tmp_path / "one")
    with StoreWriter(tmp_path / "other", other.plan()) as writer:
        for bank, batch in other.batches(writer.todo):
            del batch["image"]
            writer.append(bank, batch)
    merge(tmp_path / "all", [str(tmp_path / "one"), str(tmp_path / "other")])
    assert "bands" not in zarr.open_group(tmp_path / "all", mode="r").attrs


def test_what_was_skipped_and_configured_is_kept(tmp_path: Path, several: list[Any]) -> None:
    for number, made in enumerate(several):
        skipped = [{"id": f"bad{number}", "reason": "clouds"}] if number != 1 else []
        made.write(tmp_path / str(number), made.plan(skipped=skipped, config={"seed": number}))
    merge(tmp_path / "all", [str(tmp_path / str(number)) for number in range(3)])
    attributes: Any = zarr.open_group(tmp_path / "all", mode="r").attrs
    assert [sample["id"] for sample in attributes["skipped"]] == ["bad0", "bad2"]
    assert attributes["configuration"] == {"merged": [{"seed": 0}, {"seed": 1}, {"seed": 2}]}
    parts = [dict(made.identity["train"]) for made in several]
    assert attributes["data"]["train"] == {"merged": parts}
    assert attributes["data"]["test"] == several[1].identity["test"]


def changed(spec: BankSpec, what: str) -> BankSpec:
    if what == "taps":
        return replace(spec, taps=spec.taps[:3])
    values: dict[str, Any] = {"weights": "def", "mode": "inversion", "settings": (("seed", 1),), "encoder": "other"}
    return replace(spec, image_size=(32, 24)) if what == "image_size" else replace(spec, **{what: values[what]})


@pytest.mark.parametrize("what", ["weights", "mode", "settings", "encoder", "image_size", "taps"])
def test_features_of_another_encoder_are_not_joined(tmp_path: Path, make: Any, spec: BankSpec, what: str) -> None:
    make({"train": 2}).write(tmp_path / "one")
    renamed(make({"train": 2}, changed(spec, what)), "x").write(tmp_path / "other")
    words = {"taps": "mid.block@161", "settings": "seed: 0 and 1"}.get(what, what)
    paths = [str(tmp_path / "one"), str(tmp_path / "other")]
    refused(rf"one and .*other cannot be joined: .*{words}", lambda: merge(tmp_path / "all", paths))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def test_another_form_or_other_classes_or_a_sample_twice_are_refused(tmp_path: Path, several: list[Any]) -> None:
    one, other = several[:2]
    one.write(tmp_path / "one")
    other.write(tmp_path / "half", other.plan("float16"))
    other.classes = Labels(("water", "forest", "road"), other.classes.colours)
    other.write(tmp_path / "classes")
    one.ids = {"val": one.ids["train"], "train": [*one.ids["val"][:2], one.ids["train"][4]]}
    one.names, one.counts = [*one.ids["val"], *one.ids["train"]], {"val": 7, "train": 3}
    one.write(tmp_path / "twice")

    def joined(name: str) -> Callable[[], Any]:
        return lambda: merge(tmp_path / "all", [str(tmp_path / "one"), str(tmp_path / name)])

    refused("cannot be joined: store.dtype=float32 and store.dtype=float16", joined("half"))
    refused("cannot be joined: classes .*town.*road", joined("classes"))
    refused(rf"sample {re.escape(one.ids['train'][2])} of train is there twice", joined("twice"))
    refused("is there twice", joined("one"))
    refused("no feature store at .*nowhere", joined("nowhere"))
    assert not (tmp_path / "all").exists()
    assert not (tmp_path / "all.partial").exists()
    refused("half already exists", lambda: merge(tmp_path / "half", [str(tmp_path / "one")]))


@pytest.mark.parametrize("name", ["mask", "target"])
def test_a_label_that_only_one_store_has_is_refused_by_its_name(tmp_path: Path, several: list[Any], name: str) -> None:
    one, other = several[:2]
    one.write(tmp_path / "one")
    del other.labels[name]
    other.write(tmp_path / "other")
    refused(name, lambda: merge(tmp_path / "all", [str(tmp_path / "one"), str(tmp_path / "other")]))
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("number", range(4))
def test_an_interrupted_merge_goes_on_to_the_same_bytes(
    tmp_path: Path, several: list[Any], files_of: Files, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    random.seed(number)
    paths = written(tmp_path, several, random.choice(["float16", "int8"]))
    monkeypatch.setattr("satdifuser.store.merge.MEMORY", 1000)
    monkeypatch.setattr("satdifuser.store.merge.StorePlan", lambda *a, **k: StorePlan(*a, **k, shard_bytes=500))
    merge(tmp_path / "unbroken", paths)
    last, real, calls = random.randrange(1, 7), StoreWriter.append, [0]

    def append(self: StoreWriter, *args: Any) -> None:
        calls[0] += 1
        if calls[0] == last:
            raise KeyboardInterrupt
        real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "append", append)
        with pytest.raises(KeyboardInterrupt):
            merge(tmp_path / "all", paths)
    assert not (tmp_path / "all").exists()
    merge(tmp_path / "all", paths)
    assert verify(str(tmp_path / "all")) == []
    assert files_of(tmp_path / "all") == files_of(tmp_path / "unbroken")


def test_an_interruption_just_before_the_manifest_has_its_name_costs_nothing(
    tmp_path: Path, several: list[Any], files_of: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, real = written(tmp_path, several), Path.replace
    merge(tmp_path / "unbroken", paths)

    def replaced(self: Path, target: Path) -> Path:
        if Path(target).name == "manifest.json":
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replaced)
        with pytest.raises(KeyboardInterrupt):
            merge(tmp_path / "all", paths)
    merge(tmp_path / "all", paths)
    assert verify(str(tmp_path / "all")) == []
    assert files_of(tmp_path / "all") == files_of(tmp_path / "unbroken")


def test_a_merge_holds_no_more_than_its_share_of_memory(
    tmp_path: Path, several: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = written(tmp_path, several)
    sample, read, most = Form("float32").bytes_per_sample(several[0].spec), LocalFiles.read_into, [0]

    def watched(self: LocalFiles, pieces: Any, arrived: Any = None) -> None:
        most[0] = max(most[0], sum(len(target) for _, _, target in pieces))
        read(self, pieces, arrived)

    monkeypatch.setattr(LocalFiles, "read_into", watched)
    monkeypatch.setattr("satdifuser.store.merge.MEMORY", 2 * sample)
    merge(tmp_path / "all", paths)
    assert 0 < most[0] <= 2 * sample
