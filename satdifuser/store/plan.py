"""What a store is going to be, known before the first feature: its samples, its arrays, and how they are cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from satdifuser.bank import BankSpec
from satdifuser.data.base import Labels
from satdifuser.errors import UserError
from satdifuser.store.forms import Column, Form, alternatives, bytes_text
from satdifuser.store.layout import ID_BYTES, READS, SHARD_BYTES, VERSION, Places, Units
from satdifuser.store.shards import crc32c


@dataclass(frozen=True)
class StorePlan:
    """`spec` is that of what is kept (`form.spec` of the encoder's), `ids` the samples of every split, in order."""

    spec: BankSpec
    form: Form
    ids: Mapping[str, Sequence[str]]
    labels: Labels
    identity: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    skipped: Sequence[Mapping[str, str]] = ()
    bands: Sequence[str] = ()
    latents: BankSpec | None = None  # of the encoder, to say what keeping these would take
    shard_bytes: int = SHARD_BYTES
    places: Callable[[], Places] | None = None  # asked for when all samples have been read

    def __post_init__(self) -> None:
        if not self.samples:
            reason = f": all {len(self.skipped)} were skipped ({self.skipped[0]['reason']})" if self.skipped else ""
            raise UserError(f"no sample is left to extract{reason}")
        for name in (name for names in self.ids.values() for name in names):
            if 4 * len(name) > ID_BYTES and (size := len(name.encode())) > ID_BYTES:
                raise UserError(f"sample {name[:60]}... has an id of {size} bytes: shorten it to {ID_BYTES} at most")
        if len(self.ids) > 256:
            raise UserError(f"a store has at most 256 splits, not {len(self.ids)}")

    @property
    def splits(self) -> list[str]:
        return list(self.ids)

    @property
    def samples(self) -> int:
        return sum(len(ids) for ids in self.ids.values())

    @cached_property
    def columns(self) -> list[Column]:
        return self.form.columns(self.spec)

    @cached_property
    def units(self) -> Units:
        return Units.of(self.columns, self.samples, self.shard_bytes)

    @cached_property
    def rows(self) -> list[tuple[int, str]]:
        """Split number and id of every row."""
        return [(number, name) for number, ids in enumerate(self.ids.values()) for name in ids]

    @property
    def feature_bytes(self) -> int:
        return self.samples * self.form.bytes_per_sample(self.spec)

    def cheaper(self, room: int) -> str:
        """What would fit into so many bytes, in words."""
        sizes = {form: self.samples * size for form, size in alternatives(self.form, self.spec, self.latents).items()}
        fits = [f"{form.words} ({bytes_text(size)})" for form, size in sizes.items() if size <= room]
        return f"use {', '.join([*fits, 'fewer taps or timesteps'])}, or another disk"

    def attributes(self) -> dict[str, Any]:
        """Attributes of the finished store, apart from what only its samples can tell."""
        return {
            "satdifuser_store": VERSION,
            "spec": self.spec.to_dict(),
            "form": {"dtype": self.form.dtype, "keep": self.form.keep},
            "labels": self.labels.to_dict(),
            "splits": self.splits,
            "data": {name: dict(self.identity[name]) for name in self.splits},
            "unit": {"samples": self.units.size, "chunk_bytes": self.units.chunk_bytes},
            "columns": [column.name for column in self.columns],
            "configuration": dict(self.config),
            **({"skipped": [dict(sample) for sample in self.skipped]} if self.skipped else {}),
        }

    def to_json(self) -> str:
        """Everything that must be the same for a run to go on where another stopped."""
        names = "\n".join(f"{split} {name}" for split, name in self.rows).encode()
        of_samples = {"samples": {name: len(ids) for name, ids in self.ids.items()}, "ids": crc32c_of(names)}
        return json.dumps({**self.attributes(), **of_samples}, indent=1, sort_keys=True)

    def difference(self, other: Mapping[str, Any]) -> str | None:
        """What sets another plan apart from this one, in words; None if nothing does."""
        mine = json.loads(self.to_json())
        found: list[str] = []
        if mine["spec"] != other.get("spec"):
            found = BankSpec.from_dict(other["spec"]).differences(self.spec)
        ours, theirs = leaves(mine), leaves(other)
        if theirs.get("satdifuser_store") in READS:  # versions that differ in what is written last
            theirs["satdifuser_store"] = VERSION
        for key in sorted(ours.keys() | theirs.keys()):  # the configuration is a record: what counts of it is elsewhere
            if ours.get(key) != theirs.get(key) and key.partition(".")[0] not in ("spec", "configuration"):
                found.append(f"{key}: {_short(theirs.get(key))} and {_short(ours.get(key))}")
        return "; ".join(found[:3]) or None


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """
    >>> leaves({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, part in value.items() for k, v in leaves(part, f"{name}.{key}" if name else key).items()}


def crc32c_of(data: bytes) -> str:
    import numpy as np

    return f"{crc32c(np.frombuffer(data, np.uint8)):08x}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
