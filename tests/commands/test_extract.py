"""satdifuser extract on data with bad samples: stop at the first with one line, or leave them out and say which."""

from __future__ import annotations

import gc
import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zarr

from satdifuser.build import build_encoder
from satdifuser.cli import main
from satdifuser.config import compose
from satdifuser.data.inputs import sample_check
from satdifuser.store import FeatureStore

MODULE = '''
import os

import torch
from satdifuser.data.synthetic import SyntheticScenes
from satdifuser.errors import UserError


class Spoiled:
    """Scenes of which some are bad: `bad` has, as `index-fault`, what is wrong; with `drop` these are not there."""

    name, labels = "spoiled", SyntheticScenes.labels

    def __init__(self, split, length, *, size, bad=(), metadata=False, drop=False, prefix=""):
        self.scenes = SyntheticScenes(split, length, size=size)
        self.bad = {int(word.split("-")[0]): word.split("-")[1] for word in bad}
        self.rows = [row for row in range(length) if not (drop and row in self.bad)]
        self.metadata, self.prefix = metadata, prefix
        self.identity = {"name": "spoiled", "split": split}

    def __len__(self):
        return len(self.rows)

    def sample_id(self, index):
        return self.prefix + self.scenes.sample_id(self.rows[index])

    def __getitem__(self, index):
        sample, fault = self.scenes[self.rows[index]], self.bad.get(self.rows[index])
        sample["id"] = self.sample_id(index)
        image = sample["image"].clamp(0, 1)
        if self.metadata:
            sample["metadata"] = torch.tensor([12.5, 47.0, 0.6, 0.1, 2020.0, 1.0 + self.rows[index] % 12, 3.0])
        if fault == "nan":
            image[7, 3, 5] = torch.nan
        elif fault == "bands":
            image = image[:12]
        elif fault == "numbers":
            image = image * 3000
        elif fault == "large":
            image, sample["mask"] = image.repeat(1, 2, 2)[:, :24, :24], sample["mask"].repeat(2, 2)[:24, :24]
        elif fault == "unread" and "MENDED" not in os.environ:
            raise UserError("tile.tif cannot be read: fetch it again")
        elif fault == "oserror":
            raise FileNotFoundError(2, "No such file or directory", "tile.tif")
        elif fault == "without":
            del sample["metadata"]
        elif fault == "short":
            sample["metadata"] = sample["metadata"][:5]
        elif fault == "unknown":
            sample["metadata"][3] = torch.nan
        return {**sample, "image": image}
'''
# fault -> what its line says: what is wrong, and a remedy
SAYS = {
    "nan": ("NaN or infinite values in 1 pixels", "mask them as no-data (0)"),
    "bands": ("has the shape (12, 16, 16)", "set data.sensor"),
    "numbers": ("is declared as -0.2 to 7", "scale digital numbers to reflectance"),
    "large": ("is 24 x 24 px, but the network was built for 16 x 16", "encoder.image_size"),
    "unread": ("tile.tif cannot be read", "fetch it again"),
}
METADATA_SAYS = {
    "without": ("has no metadata", "set encoder.metadata=none"),
    "short": ("has metadata of the length 5", "the UNet reads 7 numbers"),
    "unknown": ("has metadata that is not known ([12.5, 47.0, 0.6", "fill it in"),
}
SMALL = ["encoder.taps=[mid_block, up_blocks.1.resnets.1.conv2]", "encoder.timesteps=[21]"]
MIXED = ["1-nan", "3-unread", "4-bands", "5-numbers", "9-large"]  # in batches of 3: some, all, none, all of the last


@pytest.fixture(autouse=True)
def data_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "spoiled_scenes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "code")


Extract = Callable[..., int]


@pytest.fixture
def extract(tmp_path: Path) -> Extract:
    """Run `satdifuser extract` on spoiled data of `lengths`; the store is `tmp_path/<name>.zarr`."""

    def run(*words: str, name: str = "f", lengths: tuple[int, ...] = (7,), encoder: Any = SMALL, **data: Any) -> int:
        splits = dict(zip(("train", "val"), lengths, strict=False))
        node = {
            "_target_": "spoiled_scenes.Spoiled",
            "sensor": "satdifuser.data.bands.SENTINEL2",
            "size": 16,
            **data,
            "splits": {split: {"split": split, "length": length} for split, length in splits.items()},
        }
        (tmp_path / "configs" / "data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "configs" / "data" / "spoiled.yaml").write_text(json.dumps(node))
        store = ["store.dtype=float32", "store.batch_size=3", f"store.path={tmp_path / 'stores' / f'{name}.zarr'}"]
        return main(["extract", "--config-dir", str(tmp_path / "configs"), "data=spoiled", *encoder, *store, *words])

    return run


def refused(capsys: pytest.CaptureFixture, tmp_path: Path, code: int, begun: bool = False) -> str:
    """The one line of an extraction that must fail and leave no store: nothing, or what was begun."""
    out, err = capsys.readouterr()
    assert code == 2, err[-600:]
    assert err.count("\n") == 1
    assert err.startswith("satdifuser: ")
    assert "Traceback" not in err
    assert out == ""
    assert [path.name for path in tmp_path.glob("stores/*")] == (["f.zarr.partial"] if begun else [])
    return err


def same(tmp_path: Path, one: str, other: str) -> None:
    """Two stores hold the same samples, and, up to what another batch rounds, the same features."""
    first, second = (FeatureStore(tmp_path / "stores" / f"{name}.zarr") for name in (one, other))
    assert first.splits == second.splits
    for split in first.splits:
        a, b = first.split(split), second.split(split)
        x, y = a.batch(range(len(a))), b.batch(range(len(b)))
        assert x["id"] == y["id"]
        for tap in first.spec.taps:
            torch.testing.assert_close(x["bank"][tap], y["bank"][tap], atol=1e-5, rtol=1e-5)
        for label in ("mask", "label", "multilabel", "target"):
            assert torch.equal(x[label], y[label])


def named(index: int, split: str = "train") -> str:
    return f"scene-0-{index + (1_000_000 if split == 'val' else 0)}"


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("fault", SAYS)
def test_a_bad_sample_stops_with_one_line_that_names_it_and_leaves_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture, extract: Extract, fault: str
) -> None:
    said = refused(capsys, tmp_path, extract(bad=[f"4-{fault}"]), begun=True)
    assert all(words in said for words in SAYS[fault])
    assert re.search(rf"sample {named(4)}\b", said)


def test_workers_stop_with_the_same_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, extract: Extract
) -> None:
    # torch waits so long for each worker of a loader that the garbage collector finds
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    alone = refused(capsys, tmp_path, extract(bad=["4-numbers"]), begun=True)
    shutil.rmtree(tmp_path / "stores")
    together = extract("store.workers=2", bad=["4-numbers"])
    gc.collect()
    assert refused(capsys, tmp_path, together, begun=True) == alone


def test_when_a_sample_is_mended_the_same_command_goes_on_and_the_store_is_as_without_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, extract: Extract
) -> None:
    words: dict[str, Any] = {"lengths": (7, 4), "bad": ["5-unread"]}
    few = ["store.shard_mb=0.016", "store.batch_size=1"]  # two samples a file
    refused(capsys, tmp_path, extract(*few, **words), begun=True)
    monkeypatch.setenv("MENDED", "yes")
    assert extract(*few, **words) == 0
    assert "going on with" in one_line(capsys.readouterr().err)
    assert [path.name for path in tmp_path.glob("stores/*")] == ["f.zarr"]
    assert extract(*few, name="good", **words) == 0
    assert "going on with" not in capsys.readouterr().err
    same(tmp_path, "f", "good")


@pytest.mark.parametrize(("workers", "shard_bytes"), [(0, 2**20), (2, 2 * 192 * 4 * 4)])  # one file a tap; many
def test_bad_samples_are_left_out_listed_and_the_good_ones_are_as_if_they_had_been_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture, extract: Extract, workers: int, shard_bytes: int
) -> None:
    files = f"store.shard_mb={shard_bytes / 2**20}"
    bad = {int(word[0]): word[2:] for word in MIXED}
    assert extract("on_error=skip", files, f"store.workers={workers}", lengths=(10, 8), bad=MIXED) == 0
    said = one_line(capsys.readouterr().err)
    assert extract(files, name="good", lengths=(10, 8), bad=MIXED, drop=True) == 0
    assert "skipped" not in capsys.readouterr().err
    same(tmp_path, "f", "good")

    group = zarr.open_group(tmp_path / "stores" / "f.zarr", mode="r")
    skipped: Any = group.attrs["skipped"]
    wanted = [(named(i), fault) for i, fault in bad.items()]
    wanted += [(named(i, "val"), fault) for i, fault in bad.items() if i < 8]
    assert [sample["id"] for sample in skipped] == [name for name, _ in wanted]
    for sample, (_, fault) in zip(skipped, wanted, strict=True):
        assert set(sample) == {"id", "reason"}
        assert all(words in sample["reason"] for words in SAYS[fault])
        assert sample["reason"] in said
        assert sample["id"] in said
    assert all(words in said for words in ("9 samples, 2 taps", "skipped 9 samples"))
    shapes: Any = {name: array.shape for name, array in group.arrays()}
    assert (shapes["mid_block@21"], shapes["up_blocks.1.resnets.1.conv2@21"]) == ((9, 192, 2, 2), (9, 96, 4, 4))
    assert {shape[0] for shape in shapes.values()} == {9}
    assert "skipped" not in zarr.open_group(tmp_path / "stores" / "good.zarr", mode="r").attrs


def test_a_split_without_a_good_sample_is_empty_and_all_of_them_bad_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture, extract: Extract
) -> None:
    said = refused(capsys, tmp_path, extract("on_error=skip", lengths=(2, 2), bad=["0-nan", "1-numbers"], name="none"))
    assert "all 4" in said
    assert f"sample {named(0)} has NaN" in said
    assert extract("on_error=skip", lengths=(4, 2), bad=["0-nan", "1-nan"]) == 0
    store = FeatureStore(tmp_path / "stores" / "f.zarr")
    assert (len(store.split("train")), len(store.split("val"))) == (2, 0)


def test_a_long_list_is_cut_short_and_the_store_has_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture, extract: Extract
) -> None:
    bad = [f"{i}-nan" for i in range(23)]
    assert extract("on_error=skip", "store.batch_size=8", lengths=(24,), bad=bad) == 0
    said = capsys.readouterr().err
    assert said.count("NaN or infinite") == 20
    assert "and 3 more" in said
    skipped: Any = zarr.open_group(tmp_path / "stores" / "f.zarr", mode="r").attrs["skipped"]
    assert [sample["id"] for sample in skipped] == [named(i) for i in range(23)]


def test_brackets_in_a_samples_id_are_shown_as_they_are(capsys: pytest.CaptureFixture, extract: Extract) -> None:
    assert extract("on_error=skip", bad=["4-nan"], prefix="tile[/b][red]-") == 0
    assert "sample tile[/b][red]-scene-0-4 has NaN" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_where_images_are_resized_a_mask_of_another_size_is_still_one_line_about_its_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture, extract: Extract, batch_size: int
) -> None:
    code = extract(f"store.batch_size={batch_size}", "encoder.prepare.size=16", bad=["4-large"])
    assert named(4) in refused(capsys, tmp_path, code, begun=True)


def test_a_file_of_the_data_that_is_missing_is_not_called_a_fault_of_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture, extract: Extract
) -> None:
    assert extract(bad=["4-oserror"]) != 0
    said = capsys.readouterr().err
    assert "tile.tif" in said
    assert "could not write" not in said
    assert not (tmp_path / "stores" / "f.zarr").exists()


@pytest.fixture(scope="module")
def satellite(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a tiny DiffusionSat that reads seven numbers of metadata."""
    write = runpy.run_path(str(Path(__file__).parents[1] / "diffusion" / "conftest.py"))["write_checkpoint"]
    folder = write(tmp_path_factory.mktemp("satellite") / "tiny", satellite=True)
    size = ["encoder.image_size=16", "encoder.taps=[mid_block]", "encoder.timesteps=[21]"]
    return ["encoder=diffusionsat", f"encoder.backbone.weights={folder}", *size]


def test_metadata_that_cannot_be_used_stops_or_is_skipped_with_its_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture, extract: Extract, satellite: list[str]
) -> None:
    words, bad = [*satellite, "encoder.metadata=samples"], {1: "without", 3: "short", 6: "unknown"}
    said = refused(capsys, tmp_path, extract(encoder=words), begun=True)
    assert f"sample {named(0)} has no metadata" in said  # none has any
    again = extract("store.overwrite=true", encoder=words, metadata=True, bad=["3-short"])
    said = refused(capsys, tmp_path, again, begun=True)
    assert all(part in said for part in (f"sample {named(3)} ", *METADATA_SAYS["short"]))
    common: dict[str, Any] = {"encoder": words, "metadata": True, "bad": [f"{i}-{fault}" for i, fault in bad.items()]}
    assert extract("on_error=skip", "store.overwrite=true", **common) == 0
    said = one_line(capsys.readouterr().err)
    skipped: Any = zarr.open_group(tmp_path / "stores" / "f.zarr", mode="r").attrs["skipped"]
    assert [sample["id"] for sample in skipped] == [named(index) for index in bad]
    for sample, fault in zip(skipped, bad.values(), strict=True):
        assert all(part in sample["reason"] for part in METADATA_SAYS[fault])
        assert sample["reason"] in said  # word for word, brackets too
    assert extract(name="good", drop=True, **common) == 0
    same(tmp_path, "f", "good")


def test_the_published_notation_of_timesteps_works_on_the_command_line(
    tmp_path: Path, extract: Extract, satellite: list[str]
) -> None:
    words = [*satellite, "encoder.save_steps=[47,45,40]"]
    assert extract(encoder=words, lengths=(1,)) == 0
    assert FeatureStore(tmp_path / "stores" / "f.zarr").spec.timesteps == (21, 61, 161)


@pytest.mark.slow
@pytest.mark.parametrize(("word", "numbers"), [("samples", 7), ("none", 0), ("[12,47,0.6,0.1,2020,5,3]", 0)])
def test_the_check_asks_for_as_many_numbers_as_the_network_reads_of_a_sample(
    satellite: list[str], word: str, numbers: int
) -> None:
    encoder = build_encoder(compose("extract", [*satellite, f"encoder.metadata={word}"]).encoder)
    check = sample_check(encoder)
    assert check is not None
    assert (check.metadata, check.size, check.prepare.size) == (numbers, (16, 16), 16)


@pytest.mark.slow
def test_a_size_that_the_samples_do_not_have_is_one_line_about_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture, extract: Extract
) -> None:
    said = refused(capsys, tmp_path, extract("encoder.image_size=32"), begun=True)
    assert all(word in said for word in (named(0), "is 16 x 16 px", "32 x 32", "encoder.prepare.size"))
