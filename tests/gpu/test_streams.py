"""Two extractions at once, each in a thread and a stream of its own, give what they give one after the other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from satdifuser.bank import FeatureBank
from satdifuser.data.base import Labels

pytestmark = pytest.mark.gpu
SAMPLES, BATCH = 24, 4

Job = Callable[[], None]


def stored(path: Path, encoder: Any, images: Tensor, ids: list[str], device: torch.device, stream: Any) -> Job:
    """What extracts these samples to a store."""
    from satdifuser.engine.features import features
    from satdifuser.store import BackgroundWriter, Form, StorePlan, StoreWriter

    form = Form("float32")
    plan = StorePlan(encoder.spec, form, {"all": ids}, Labels((), ()), {"all": {}}, shard_bytes=2**18)

    def extract() -> None:
        with StoreWriter(path, plan) as store, BackgroundWriter(store) as writer, stream, torch.inference_mode():
            for first in range(0, SAMPLES, BATCH):
                rows = slice(first, first + BATCH)
                batch = {"id": ids[rows], "image": images[rows]}
                writer.put(features(encoder, batch, device), batch)

    return extract


def at_once(*jobs: Job) -> None:
    """In threads that begin together; the first error of any of them is raised here."""
    begin, raised = threading.Barrier(len(jobs)), []

    def run(job: Job) -> None:
        try:
            begin.wait(60)
            job()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "it waits for ever"
    if raised:
        raise raised[0]


def read(path: Path) -> FeatureBank:
    from satdifuser.store import FeatureStore

    return FeatureStore(path).split("all").batch(range(SAMPLES))["bank"]


@pytest.mark.parametrize("mode", ["noise", "generation"])
def test_two_extractions_at_once_give_what_they_give_one_after_the_other(
    mode: str, tmp_path: Path, device: torch.device, diffusion: Any, some: Any, agree: Any
) -> None:
    pytest.importorskip("zarr")
    encoders = [diffusion("latent", mode=mode, seed=seed, posterior="sample").to(device) for seed in (1, 2)]
    given = [some(SAMPLES)[:2] for _ in encoders]
    if device.type == "cuda":
        given = [(images.pin_memory(), ids) for images, ids in given]
        torch.cuda.synchronize(device)  # the weights have come: another stream does not wait for them

    def job(name: str, number: int) -> Job:
        own = torch.cuda.Stream(device) if device.type == "cuda" and name == "together" else None
        stream: Any = contextlib.nullcontext() if own is None else torch.cuda.stream(own)
        return stored(tmp_path / f"{name}-{number}.zarr", encoders[number], *given[number], device, stream)

    for number in (0, 1):
        job("alone", number)()
    at_once(job("together", 0), job("together", 1))
    for number in (0, 1):
        alone, together = (read(tmp_path / f"{name}-{number}.zarr") for name in ("alone", "together"))
        if device.type == "cpu":
            assert all(torch.equal(together[tap], alone[tap]) for tap in alone)
        else:  # cuBLAS promises the same bits only where no other stream runs beside
            agree(together, alone, "again")
    one, other = read(tmp_path / "alone-0.zarr"), read(tmp_path / "alone-1.zarr")
    assert not any(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


def test_two_threads_draw_the_noise_of_their_own_samples(device: torch.device, busy: Callable[[], None]) -> None:
    from satdifuser.diffusion.noise import batch_noise, sample_noise

    cuda, drawn = device.type == "cuda", dict[str, Tensor]()

    def job(name: str) -> Job:
        def draw() -> None:
            with torch.cuda.stream(torch.cuda.Stream(device)) if cuda else contextlib.nullcontext():
                like = torch.empty(16, 4, 16, 16, device=device)
                busy()
                for t in range(20):
                    drawn[f"{name} {t}"] = batch_noise(0, [f"{name}-{i}" for i in range(16)], t, like)
                if cuda:
                    torch.cuda.current_stream(device).synchronize()

        return draw

    at_once(job("a"), job("b"))
    assert len(drawn) == 40
    for key, noise in drawn.items():
        name, t = key.split()
        wanted = torch.stack([sample_noise(0, f"{name}-{i}", int(t), (4, 16, 16)) for i in range(16)])
        assert torch.equal(noise.cpu(), wanted), key
