"""Stores of random features that know their labels, and the settings that probe them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.config import compose
from satdifuser.data.base import Labels
from satdifuser.store import FeatureStore, Form, StorePlan, StoreWriter

CLASSES = 4
COUNTS = {"train": 90, "val": 40, "test": 50}
TOKENS = ("blocks.0.class", "blocks.1.class")


def spec_of(tokens: bool = False, timesteps: tuple[int | None, ...] = (None,)) -> BankSpec:
    taps = []
    for step in timesteps:
        for block in (0, 1):
            taps.append(Tap(f"blocks.{block}", step, 2 * block, 6, 8))
            if tokens:
                taps.append(Tap(f"blocks.{block}.class", step, 2 * block + 1, 6, 32))
    return BankSpec(tuple(taps), "toy", "none", (32, 32))


@pytest.fixture
def made_store(tmp_path: Path) -> Callable[..., FeatureStore]:
    """A store of all splits; every map knows the labels, deeper ones better."""

    def make(
        name: str = "s.zarr", keep: str = "maps", label: str = "label", blank: bool = False, **kwargs: Any
    ) -> FeatureStore:
        spec, form, total = spec_of(**kwargs), Form("float32", keep), sum(COUNTS.values())
        maps, labels = drawn(spec, total, label)
        labels = torch.full_like(labels, 255) if blank else labels
        column = "target" if label == "map" else label
        ids = {split: [f"{split}-{i}" for i in range(count)] for split, count in COUNTS.items()}
        classes = Labels(tuple("wxyz"), ("#000000",) * CLASSES)
        plan = StorePlan(form.spec(spec), form, ids, classes, {split: {"name": "made up"} for split in ids})
        every = [name for names in ids.values() for name in names]
        bank = FeatureBank(spec, maps)
        with StoreWriter(tmp_path / name, plan) as writer:
            for rows in writer.todo:
                chosen = slice(rows.start, rows.stop)
                writer.append(form.pack(bank.samples(chosen)), {"id": every[chosen], column: labels[chosen]})
        return FeatureStore(tmp_path / name)

    return make


def drawn(spec: BankSpec, total: int, label: str) -> tuple[dict[Tap, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(int(np.random.default_rng().integers(2**31)))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    known = torch.randint(0, CLASSES, (total,), generator=generator)
    if label in ("mask", "map"):
        small = torch.randint(0, CLASSES, (total, 4, 4), generator=generator)
        mask = small.repeat_interleave(6, 1).repeat_interleave(6, 2)  # 24 x 24: not a multiple of the maps' side
        mask[torch.rand(mask.shape, generator=generator) < 0.1] = 255
        patterns = torch.nn.functional.one_hot(small, CLASSES).permute(0, 3, 1, 2).float()
    else:
        patterns = torch.nn.functional.one_hot(known, CLASSES).float()[:, :, None, None]
    mixing = normal(6, CLASSES)
    maps = {}
    for tap in spec.taps:
        signal = torch.einsum("kc,bcxy->bkxy", mixing, patterns)
        maps[tap] = 3 + (0.3 + 0.1 * tap.depth) * signal + normal(total, *spec.shape(tap))
    if label == "label":
        return maps, known
    if label == "multilabel":
        return maps, (normal(total, CLASSES) + 2 * torch.nn.functional.one_hot(known, CLASSES) > 0.7).float()
    if label == "mask":
        return maps, mask
    if label == "map":
        return maps, torch.where(mask == 255, torch.nan, 40 + mask + 0.3 * normal(*mask.shape))
    return maps, (known + 0.3 * normal(total)).float()


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Any]:
    def make(*overrides: str, output: str = "out") -> Any:
        return compose("probe", [f"output={tmp_path / output}", "resamples=100", *overrides])

    return make
