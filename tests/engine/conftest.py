"""A toy world for the trainer: banks whose maps carry the label, held in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.base import Batch, Labels
from satdifuser.decoders import LinearDecoder
from satdifuser.engine.run import RunFolder
from satdifuser.engine.trainer import Trainer, make_accelerator
from satdifuser.fusion import GlobalWeighted, MixtureOfExperts
from satdifuser.model import FeatureModel
from satdifuser.settings.trainer import TrainerConfig
from satdifuser.tasks import Classification, Segmentation, Task

SPEC = BankSpec(
    taps=tuple(Tap(name, t, d, 6, s) for t in (21, 161) for d, (name, s) in enumerate([("mid", 4), ("up", 2)])),
    encoder="toy",
    weights="none",
    image_size=(8, 8),
)
LABELS = Labels(("a", "b", "c"), ("#f00", "#0f0", "#00f"), 255)


class ToyBanks:
    """Noise, plus the class written into one channel of every map; masks have ignored pixels, one nothing else."""

    name = "toy"
    labels = LABELS
    spec = SPEC

    def __init__(self, length: int, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        self.classes = torch.randint(3, (length,), generator=g)
        self.maps = {}
        for tap in SPEC.taps:
            noise = torch.randn(length, *SPEC.shape(tap), generator=g)
            noise[torch.arange(length), self.classes] += 1.5
            self.maps[tap] = noise
        self.masks = self.classes[:, None, None].expand(length, 8, 8).clone()
        self.masks[torch.rand(length, 8, 8, generator=g) < 0.3] = 255
        self.masks[0] = 255

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: int) -> Batch:
        return self.packed([index])

    def packed(self, indices: Sequence[int], pin: bool = False) -> Batch:
        where = torch.as_tensor(list(indices))
        return {
            "id": [f"toy-{i}" for i in indices],
            "bank": FeatureBank(SPEC, {tap: values[where] for tap, values in self.maps.items()}),
            "label": self.classes[where],
            "mask": self.masks[where],
        }


@pytest.fixture
def toy_banks() -> type[ToyBanks]:
    return ToyBanks


@pytest.fixture
def toy_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Make a trainer on toy banks; the same arguments make the same trainer."""

    def make(
        run: str = "run",
        *,
        head: str = "gw",
        task: type[Task] = Classification,
        seed: int = 0,
        length: int = 26,
        train: ToyBanks | None = None,
        **settings: object,
    ) -> Trainer:
        torch.manual_seed(seed)
        fusion = (
            GlobalWeighted(SPEC, 16) if head == "gw" else MixtureOfExperts(SPEC, 16, experts=4, top_k=2, warmup_steps=3)
        )
        kind = task(LABELS)
        model = FeatureModel(None, fusion, LinearDecoder(fusion.pyramid, 3, kind.dense), kind)
        values = {
            "max_steps": 8,
            "batch_size": 8,
            "lr": 3e-3,
            "eval_every": 2,
            "tensorboard": False,
            "warmup_epochs": 1,
        }
        folder = RunFolder(tmp_path / run).open(resume=True, overwrite=False)
        return Trainer(
            model,
            train or ToyBanks(length, seed=1),
            ToyBanks(9, seed=2),
            TrainerConfig(**{**values, **settings}),  # type: ignore[arg-type]
            folder,
            make_accelerator("no"),
            seed=seed,
            quiet=True,
        )

    return make


@pytest.fixture
def segmentation() -> type[Task]:
    return Segmentation
