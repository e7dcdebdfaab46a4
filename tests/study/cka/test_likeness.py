"""CKA before and after training, of stores and of encoders, against features that plain hooks read."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from satdifuser.analysis.dimension import effective_rank, two_nn
from satdifuser.build import build_data, build_encoder, build_model
from satdifuser.config import compose
from satdifuser.data.batches import collate
from satdifuser.engine.checkpoint import load_checkpoint
from satdifuser.engine.run import RunFolder
from satdifuser.errors import UserError
from satdifuser.report.depth.content import Likeness
from satdifuser.study.cka.streaming import mixed_batches
from satdifuser.study.saved import load
from tests.study.cka.conftest import DATA, UNET, VIT, slow_cka

Compare = Callable[..., Likeness]
Run = Callable[..., str]
NAMES = {"norm1": "norm1", "qkv": "attn.qkv", "attention": "attn.proj", "norm2": "norm2", "fc1": "mlp.fc1"}
NAMES |= {"fc2": "mlp.fc2"}


def encoder_of(run: str, after: bool) -> Any:
    """The run's encoder by way of its whole model."""
    folder = RunFolder(run)
    settings = folder.settings()
    if not after:
        return build_encoder(settings.encoder).eval()
    model = build_model(settings, build_data(settings.data, "test"))
    model.load_trained_state(load_checkpoint(folder.best)[1])
    assert model.encoder is not None
    return model.encoder.eval()


def batch_of(run: str, indices: list[int]) -> dict[str, Any]:
    data = build_data(RunFolder(run).settings().data, "test")
    return collate([data[index] for index in indices])


def hooked(encoder: Any, modules: dict[str, nn.Module], batch: dict[str, Any]) -> dict[str, list[np.ndarray]]:
    """The mean over the cells of everything that the modules give in a pass, call by call, in float64."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in modules}

    def reader(name: str) -> Any:
        def read(_m: Any, _i: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            mean = value[:, 1:].double().mean(1) if value.ndim == 3 else value.double().mean((2, 3))
            found[name].append(mean.numpy())

        return read

    hooks = [module.register_forward_hook(reader(name)) for name, module in modules.items()]
    with torch.no_grad():
        encoder(batch["image"], sample_ids=batch["id"])
    for hook in hooks:
        hook.remove()
    return found


def vit_modules(encoder: Any) -> dict[str, nn.Module]:
    made: dict[str, nn.Module] = {}
    for number, block in enumerate(encoder.backbone.blocks):
        inside = getattr(block, "base_layer", block)
        made |= {f"blocks.{number}.{kind}": inside.get_submodule(path) for kind, path in NAMES.items()}
        made[f"blocks.{number}"] = block
    return made


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["full", "lora", "deflect"])
def test_what_training_moves_in_a_vit_is_what_plain_hooks_and_float64_say(
    adapter: str, trained: Run, compared: Compare
) -> None:
    run = trained("run", *VIT, f"adapter={adapter}")
    found = compared(run, None, "cka.modules=all", "cka.batch=8")
    before, after = encoder_of(run, after=False), encoder_of(run, after=True)
    names = [str(place) for place in found.rows]
    assert names == list(vit_modules(before))
    assert found.same
    assert found.samples == 21
    data = build_data(RunFolder(run).settings().data, "test")
    parts = mixed_batches([data.sample_id(n) for n in range(21)], 8)
    assert [len(part) for part in parts] == [7, 7, 7]
    rows = {}
    for side, encoder in (("after", after), ("before", before)):
        given = [hooked(encoder, vit_modules(encoder), batch_of(run, part)) for part in parts]
        rows[side] = {name: [each[name][0] for each in given] for name in names}
    expected = [[slow_cka(rows["after"][a], rows["before"][b]) for b in names] for a in names]
    np.testing.assert_allclose(found.values, expected, rtol=2e-4, atol=2e-5)
    assert np.diag(found.values).min() < 0.99999  # something has moved
    assert found.errors.shape == found.values.shape


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_what_training_moves_in_a_unet_is_what_plain_hooks_and_float64_say(
    adapter: str, trained: Run, compared: Compare
) -> None:
    run = trained("run", *UNET, f"adapter={adapter}")
    found = compared(run, None, "cka.modules=[conv2, norm1, attention, block]", "cka.batch=64")
    names = list(dict.fromkeys(place.tap for place in found.rows))
    assert "mid_block" in names
    assert "up_blocks.1.resnets.1.conv2" in names
    assert not any(name.startswith("up_blocks.2") for name in names)  # beyond the last tap: it does not train
    assert not any(name == "up_blocks.1" for name in names)  # it ends after the last tap
    assert {place.kind for place in found.rows} == {"conv2", "norm1", "attention", "block"}
    indices = list(range(21))
    sides = []
    for after in (True, False):
        encoder = encoder_of(run, after)
        modules = {name: encoder.network.unet.get_submodule(name) for name in names}
        given = hooked(encoder, modules, batch_of(run, indices))  # both timesteps in one call
        halves = {name: np.split(rows[0], 2) for name, rows in given.items()}
        sides.append({f"{name}@{t}": halves[name][place] for name in names for place, t in enumerate((21, 161))})
    labels = [str(place) for place in found.rows]
    expected = [[slow_cka([sides[0][a]], [sides[1][b]]) for b in labels] for a in labels]
    np.testing.assert_allclose(found.values, expected, rtol=1e-3, atol=1e-4)
    assert np.diag(found.values).min() < 0.9999
    assert np.isnan(found.errors).all()  # of a single batch


@pytest.mark.slow
@pytest.mark.parametrize("words", [UNET, [*VIT, "adapter=frozen"]], ids=["unet", "vit"])
def test_a_frozen_run_is_what_it_began_with(words: list[str], trained: Run, compared: Compare) -> None:
    found = compared(trained("run", *words), None, "cka.modules=all", "cka.batch=7")
    assert found.same
    np.testing.assert_allclose(np.diag(found.values), 1, atol=1e-9)
    assert [a == b for a, b in zip(*found.shapes, strict=True)] == [True] * len(found.rows)


@pytest.mark.slow
def test_a_store_says_what_the_encoder_that_made_it_says(stored: Run, compared: Compare) -> None:
    one, other = stored("one.zarr", *UNET), stored("other.zarr", *VIT, "adapter=frozen", "encoder.modules=[qkv,block]")
    vit = [*VIT, "adapter=frozen", "encoder.modules=[qkv,block]"]
    live = compared(UNET, vit, "cka.batch=9")
    both, left, right = (
        compared(one, other, "cka.batch=9"),
        compared(one, vit, "cka.batch=9"),
        compared(UNET, other, "cka.batch=9"),
    )
    for found in (both, left, right):
        np.testing.assert_allclose(found.values, live.values, atol=1e-5)
        np.testing.assert_allclose(found.errors, live.errors, atol=1e-5)
        assert (found.rows, found.columns, found.same) == (live.rows, live.columns, False)
        assert (found.samples, found.pool, found.split) == (21, "mean", "test")
    assert [str(place) for place in live.columns] == ["blocks.0.qkv", "blocks.0", "blocks.1.qkv", "blocks.1"]
    kinds = compared(one, other, "cka.modules=[qkv,conv2]")
    assert {place.kind for place in kinds.rows} == {"conv2"}
    assert {place.kind for place in kinds.columns} == {"qkv"}
    whole = both.values[np.ix_([1, 3], [0, 2])]
    np.testing.assert_allclose(kinds.values, compared(one, other).values[np.ix_([1, 3], [0, 2])], atol=1e-6)
    assert kinds.values.shape == whole.shape


def test_stores_are_matched_by_the_ids_of_their_samples(stored: Run, compared: Compare) -> None:
    """One store has its samples in another order: a place is still wholly like itself."""
    one = stored("one.zarr", "encoder=colours")
    other = stored("other.zarr", "encoder=colours", "store.splits=[test,train]")
    found = compared(one, other, "cka.batch=7")
    np.testing.assert_allclose(np.diag(found.values), 1, atol=1e-9)


def test_samples_that_are_sorted_by_class_are_mixed(compared: Compare, tmp_path: Path) -> None:
    """Batches of neighbours would each be of one class, and would not see what sets classes apart."""
    from PIL import Image

    generator = np.random.default_rng(5)
    for number, name in enumerate("abcd"):
        (tmp_path / name).mkdir()
        colour = generator.integers(40, 200, 3)
        for sample in range(60):
            noise = generator.normal(0, 1 + 8 * (number % 2), (16, 16, 3)) + generator.normal(0, 6, 3)
            pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{sample:03}.png")
    data = ["data=image_folder", f"data.root={tmp_path}", "data.size=16", "+data.splits.all.split=all"]
    first, second = ["encoder=colours"], ["encoder=rcf", "encoder.features=8"]
    whole = compared(first, second, "split=all", "cka.batch=240", data=data)
    assert whole.samples == 240
    parts = compared(first, second, "split=all", "cka.batch=24", data=data)
    np.testing.assert_allclose(parts.values, whole.values, atol=0.02)


@pytest.mark.slow
def test_evenly_chosen_samples_pooled_otherwise(compared: Compare) -> None:
    """Moments, grids and whole maps, in float64 from the encoder's own bank; one side with itself is read once."""
    words = ["encoder=vit", *VIT[1:], "encoder.blocks=last"]
    whole = compared(words, words, "cka.pool=flat", "cka.samples=12", "cka.batch=6")
    assert whole.samples == 12

    settings = compose("probe", [*DATA, *words])
    encoder, data = build_encoder(settings.encoder).eval(), build_data(settings.data, "test")
    chosen = [n * 21 // 12 for n in range(12)]
    with torch.no_grad():
        bank = encoder(collate([data[n] for n in chosen])["image"])
    maps = bank.map("blocks.1").double().numpy()
    halves = [slice(0, 6), slice(6, 12)]
    pooled = {
        "flat": maps.reshape(12, -1),
        "moments": np.concatenate([maps.mean((2, 3)), maps.std((2, 3))], 1),
        "grid2": maps.reshape(12, 24, 2, 2, 2, 2).mean((3, 5)).reshape(12, -1),
        "max": maps.max((2, 3)),
    }
    noise = np.random.default_rng(0).normal(size=(12, 4))
    assert abs(slow_cka([pooled["flat"][h] for h in halves], [noise[h] for h in halves])) < 0.9
    for pool, rows in pooled.items():
        found = compared(words, ["encoder=colours"], f"cka.pool={pool}", "cka.samples=12", "cka.batch=6")
        other = compared(["encoder=colours"], words, f"cka.pool={pool}", "cka.samples=12", "cka.batch=6")
        np.testing.assert_allclose(found.values.T, other.values, rtol=1e-9)
        shape = found.shapes[0][0]
        kept = rows if pool in ("moments", "max") else maps.mean((2, 3))
        assert shape.rank == pytest.approx(effective_rank(kept), rel=1e-4)
        assert shape.intrinsic == pytest.approx(two_nn(kept), rel=1e-2) or math.isnan(shape.intrinsic)
        own = compared(words, words, f"cka.pool={pool}", "cka.samples=12", "cka.batch=6")
        np.testing.assert_allclose(own.values, 1, atol=1e-9)


def test_what_is_written_is_read_again_and_not_mixed(compared: Compare, tmp_path: Path) -> None:
    words, folder = ["encoder=colours"], tmp_path / "here"
    first = compared(words, words, output=folder)
    again = compared(words, words, output=folder)
    assert again.about == load(folder).about
    assert again.about["seconds"] == first.about["seconds"]  # it was not computed again
    np.testing.assert_array_equal(again.values, first.values)

    with pytest.raises(
        UserError, match=r"holds a comparison with another cka.batch: give another output=, or overwrite"
    ):
        compared(words, words, "cka.batch=9", output=folder)
    with pytest.raises(UserError, match=r"holds a comparison with another data"):  # of the same ids
        compared(words, words, data=[*DATA[:-2], "data.cloud=1", "data.nodata=0"], output=folder)
    replaced = compared(words, words, "cka.batch=9", "overwrite=true", output=folder)
    assert replaced.batch == load(folder).batch == 9  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("SATDIFUSER_TEST_LONG"), reason="takes minutes: set SATDIFUSER_TEST_LONG=1")
def test_memory_does_not_grow_with_the_samples(compared: Compare) -> None:
    import tracemalloc

    peaks = []
    for length in (512, 64, 512):  # the first time, libraries are loaded, and the data set keeps its scenes
        data = [*DATA[:3], f"data.splits.test.length={length}", *DATA[4:]]
        tracemalloc.start()
        found = compared(["encoder=colours"], ["encoder=rcf", "encoder.features=8"], "cka.batch=16", data=data)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.samples == length
    assert peaks[2] < 1.3 * peaks[1] + 400 * 512  # ids, and nothing else


def test_of_several_dates_each_is_pooled_by_itself_and_they_stand_side_by_side(compared: Compare) -> None:
    words = [*VIT, "encoder.blocks=last", "encoder.modules=[qkv,block]"]
    data = [*DATA, "data.dates=3"]
    found = compared(["encoder=colours"], words, "cka.batch=64", data=data)
    encoders = [build_encoder(compose("probe", [*DATA, *side]).encoder).eval() for side in (["encoder=colours"], words)]
    samples = build_data(compose("probe", data).data, "test")
    rows: list[list[np.ndarray]] = [[], []]
    for index in range(len(samples)):
        for side, encoder in zip(rows, encoders, strict=True):
            with torch.no_grad():
                last = list(encoder(samples[index]["image"]).items())[-1][1]
            side.append(last.double().mean((2, 3)).flatten().numpy())
    expected = slow_cka([np.stack(rows[0])], [np.stack(rows[1])])
    assert found.values[0, 1] == pytest.approx(expected, rel=1e-5)
