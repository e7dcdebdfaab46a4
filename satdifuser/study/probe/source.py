"""Where a study's features come from: the splits of a store, or an encoder that runs on those of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.build import build_data, build_encoder, build_task, of_series, series_of
from satdifuser.data.base import Batch, LabelledDataset
from satdifuser.data.batches import OrderedBatches, loader, to_device
from satdifuser.data.inputs import sample_check
from satdifuser.data.policy import resolved
from satdifuser.errors import UserError
from satdifuser.store import FeatureStore, StoredFeatures
from satdifuser.tasks.base import Task
from satdifuser.temporal.reading import read

if TYPE_CHECKING:
    from torch import nn

    from satdifuser.settings.studies import ProbeSettings


@dataclass
class Source:
    """The splits by their role (train, val, test), the spec of all that there is, and what runs on images, if any."""

    splits: dict[str, LabelledDataset]
    spec: BankSpec
    task: Task
    device: torch.device
    batch_size: int
    workers: int
    encoder: nn.Module | None = None

    @classmethod
    def open(cls, settings: ProbeSettings) -> Source:
        """Splits train, val, and the one that probes are scored on."""
        if settings.split in ("train", "val"):
            raise UserError(
                f"split={settings.split} is one that probes learn or are chosen on: score them on another, as test"
            )
        names = {"train": "train", "val": "val", "test": settings.split}
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        store, splits = None, dict[str, Any]()
        if settings.features is not None:
            store = FeatureStore(settings.features, check=settings.check_features)
        for role, name in names.items():
            splits[role] = build_data(settings.data, name) if store is None else store.split(name, in_memory=False)
        for role, data in splits.items():
            if not len(data):
                raise UserError(f"{settings.features or data.name} has no samples in its split {names[role]}")
        _require_unseen(splits, settings.split)
        encoder = None
        if store is not None and not store.latents:
            spec = store.spec
        else:
            encoder = build_encoder(resolved(settings.encoder, settings.data)).to(device).eval().requires_grad_(False)
            spec = of_series(encoder.spec, series_of(splits["train"]).dates)
            if store is not None:
                if not hasattr(encoder, "latent_spec"):
                    raise UserError(f"{store.path} holds latents, which only the encoder that made them can read")
                store.require(of_series(encoder.latent_spec, spec.dates))
        if spec.dates is not None:
            where = settings.features or splits["train"].name
            raise UserError(f"{where} has {spec.dates} dates of each sample: probe features of one image")
        task = build_task(settings.task, splits["train"])
        return cls(splits, spec, task, device, settings.probe.batch_size, settings.probe.workers, encoder)

    @property
    def live(self) -> bool:
        """Whether the encoder runs, so that all taps come at once and each pass is dear."""
        return self.encoder is not None

    def ids(self, role: str) -> list[str]:
        data = self.splits[role]
        return [data.sample_id(index) for index in range(len(data))]

    @torch.no_grad()
    def batches(self, role: str, taps: Sequence[Tap]) -> Iterator[tuple[range, FeatureBank, Batch]]:
        """Every sample of a split once: its numbers in the split, the bank of these taps on the device, its labels."""
        data, spec = self.splits[role], self._of(taps)
        if isinstance(data, StoredFeatures) and self.encoder is None:
            data = data.store.split(data.split, spec, in_memory=False)
        check = None if self.encoder is None or isinstance(data, StoredFeatures) else sample_check(self.encoder)
        first = 0
        for batch in loader(data, OrderedBatches(len(data), self.batch_size), self.workers, check):
            self.task.check(batch)
            labels = {name: value for name, value in batch.items() if name not in ("bank", "image", "metadata")}
            moved = to_device({name: batch[name] for name in batch if name not in labels}, self.device)
            moved |= {"id": batch["id"]} | ({"dates": batch["dates"]} if "dates" in batch else {})
            bank = moved["bank"] if self.encoder is None else read(self.encoder, moved)
            yield range(first, first + len(batch["id"])), bank.select(spec), labels
            first += len(batch["id"])

    def _of(self, taps: Sequence[Tap]) -> BankSpec:
        wanted = set(taps)
        return replace(self.spec, taps=tuple(tap for tap in self.spec.taps if tap in wanted))


def _require_unseen(splits: dict[str, Any], name: str) -> None:
    """A split other than the usual three may have samples of them: a score on these says nothing."""
    if name == "test":
        return
    ids = {role: [data.sample_id(index) for index in range(len(data))] for role, data in splits.items()}
    seen = {*ids["train"], *ids["val"]}
    told = [one for one in ids["test"] if one in seen]
    if told:
        raise UserError(
            f"split={name} has {len(told)} of its {len(ids['test'])} samples in train or val, such as {told[0]}, which"
            " probes learn or are chosen on: score them on another, as test"
        )
