"""From the device to a store and back while it goes on computing: every number arrives, whatever is done meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from satdifuser.bank import BankSpec, FeatureBank
from satdifuser.data.base import Labels
from satdifuser.pooling import Pooling
from satdifuser.store.forms import Form, Packed

pytestmark = pytest.mark.gpu
BATCHES, SIZE = 8, 24  # of some 5 MB each: copies that take their time
FORMS = [Form("float32"), Form("bfloat16"), Form("int8"), Form("float32", "moments"), Form("float32", "latents")]
TAPS = (("mid", 32, 4), ("up.0", 16, 2))


@pytest.fixture(autouse=True)
def _zarr() -> None:
    pytest.importorskip("zarr")


@pytest.fixture
def spec(toy_spec: Any) -> BankSpec:
    return toy_spec((21, 61), TAPS, image_size=(64, 64))


@pytest.fixture(params=["the default stream", "a stream of its own"])
def stream(request: pytest.FixtureRequest, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """What the encoder computes in."""
    if request.param == "the default stream":
        return contextlib.nullcontext()
    if device.type != "cuda":
        pytest.skip("a CPU has no streams")
    return torch.cuda.stream(torch.cuda.Stream(device))


def plan_of(spec: BankSpec, form: Form) -> Any:
    from satdifuser.store import StorePlan

    ids = {"all": [f"tile-{number}" for number in range(BATCHES * SIZE)]}
    return StorePlan(form.spec(spec), form, ids, Labels((), ()), {"all": {}}, shard_bytes=2**21)


def rows_of(number: int) -> slice:
    return slice(number * SIZE, (number + 1) * SIZE)


def labelled(plan: Any, number: int) -> dict[str, Any]:
    rows = rows_of(number)
    return {"id": plan.ids["all"][rows], "label": torch.arange(rows.start, rows.stop)}


def write(
    path: Path, spec: BankSpec, form: Form, device: torch.device, stream: Any, busy: Callable[[], None]
) -> list[Packed]:
    """A store of many batches that all lie in the same memory one after the other; gives what each of them was."""
    from satdifuser.store import BackgroundWriter, StoreWriter

    plan, wanted = plan_of(spec, form), []
    with StoreWriter(path, plan) as store, BackgroundWriter(store) as writer, stream, torch.inference_mode():
        maps = {tap: torch.empty(SIZE, *spec.shape(tap), device=device) for tap in spec.taps}
        for number in range(BATCHES):
            for values in maps.values():
                values.normal_()
            bank = FeatureBank(spec, maps)
            wanted.append(form.pack(bank).to("cpu"))  # waits until it is there
            busy()
            writer.put(bank, labelled(plan, number))
            for values in maps.values():  # whoever reads them late finds this
                values.fill_(7e3)
    return wanted


def same(got: Packed, wanted: Packed) -> bool:
    return all(torch.equal(got.stacks[key].cpu(), value) for key, value in wanted.stacks.items())


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.keep}-{form.dtype}")
def test_batches_that_are_written_while_the_device_goes_on_are_read_as_they_were(
    form: Form, tmp_path: Path, spec: BankSpec, device: torch.device, stream: Any, busy: Callable[[], None]
) -> None:
    from satdifuser.store import FeatureStore

    wanted = write(tmp_path / "store.zarr", spec, form, device, stream, busy)
    stored = FeatureStore(tmp_path / "store.zarr").split("all")
    for number, packed in enumerate(wanted):
        rows = rows_of(number)
        batch = stored.packed(range(rows.start, rows.stop))
        assert same(batch["bank"], packed), f"batch {number}"
        assert batch["label"].tolist() == list(range(rows.start, rows.stop))
    first = wanted[0].unpack()
    assert not any(torch.equal(first[tap], wanted[1].unpack()[tap]) for tap in first)  # else it would prove nothing


def ordered(length: int) -> Iterator[list[int]]:
    """Samples of all units in one batch, so that no batch is a piece of a file."""
    order = torch.randperm(length).tolist()
    return iter([order[first : first + SIZE] for first in range(0, length, SIZE)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("where", ["in memory", "from disk"])
def test_batches_that_are_read_ahead_come_to_the_device_as_they_are_stored(
    where: str,
    dtype: str,
    tmp_path: Path,
    spec: BankSpec,
    device: torch.device,
    busy: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From pinned memory without a wait, with the host's copy let go at once and the next batch read over it."""
    from satdifuser.data.batches import loader, to_device
    from satdifuser.store import FeatureStore

    if where == "from disk":
        monkeypatch.setattr("satdifuser.store.reader.IN_MEMORY_BYTES", 0)
    wanted = write(tmp_path / "store.zarr", spec, Form(dtype), device, contextlib.nullcontext(), lambda: None)
    stored = FeatureStore(tmp_path / "store.zarr").split("all")
    came: list[tuple[list[int], FeatureBank, Tensor]] = []
    sampler: Any = list(ordered(len(stored)))
    for batch in loader(stored, sampler, workers=2):
        pinned = [value.is_pinned() for value in batch["bank"].stacks.values()]
        assert all(pinned) == any(pinned) == (where == "from disk" and torch.cuda.is_available())
        busy()
        moved = to_device(batch, device)
        indices = [int(name.removeprefix("tile-")) for name in batch["id"]]
        came.append((indices, moved["bank"], moved["label"]))
        del batch
    assert [indices for indices, _, _ in came] == sampler
    for indices, bank, label in came:
        assert bank.device.type == label.device.type == device.type
        assert label.tolist() == indices
        for place, index in enumerate(indices):
            exact = wanted[index // SIZE].unpack().samples(slice(index % SIZE, index % SIZE + 1))
            for tap in exact:
                assert torch.equal(bank[tap][place].cpu(), exact[tap][0]), (tap, index)


@pytest.mark.parametrize("keep", ["maps", "mean", "latents"])
def test_an_extraction_stores_the_features_of_the_cpu(
    keep: str, tmp_path: Path, device: torch.device, exactly: Any, agree: Any
) -> None:
    """The whole command, which takes the GPU by itself where there is one."""
    for name in ("diffusers", "hydra"):
        pytest.importorskip(name)
    from satdifuser.build import build_data, build_encoder
    from satdifuser.commands import extract
    from satdifuser.config import compose
    from satdifuser.data.batches import collate
    from satdifuser.store import FeatureStore

    words = ["data.size=16", "data.splits.train.length=7", "store.splits=[train]", "store.dtype=float32"]
    words.append(f"store.keep={keep}")
    config = compose("extract", [*words, f"store.path={tmp_path / 'store.zarr'}", "store.batch_size=3"])
    extract.run(config)
    data = build_data(config.data, "train")
    samples = collate([data[index] for index in range(len(data))])
    with torch.no_grad():
        encoder, given = exactly(build_encoder(config.encoder)), {"sample_ids": samples["id"]}
        wanted = (encoder.encode if keep == "latents" else encoder)(samples["image"], **given)
        wanted = Pooling("mean").bank(wanted) if keep == "mean" else wanted
    batch = FeatureStore(tmp_path / "store.zarr").split("train").batch(range(7))
    assert batch["id"] == samples["id"]
    agree(batch["bank"], wanted)
