"""Every encoder reads one image at a time: here the dates of samples are folded into its batch, and unfolded again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.bank import FeatureBank
from satdifuser.errors import UserError

Reads = Callable[..., FeatureBank]


def read(encoder: nn.Module, batch: Mapping[str, Any]) -> FeatureBank:
    """The encoder's bank of a batch of images, or of the latents that a store has kept of them.

    Of samples of several dates it is a bank of all of them; what is not there (a date of -1) is not read, and 0. All
    dates of a sample have the sample's id, so that where an encoder adds noise they are given the same. An encoder with
    `takes_dates` is told the date of each image (None where it is not known).
    """
    told = ("metadata", "dates") if getattr(encoder, "takes_dates", False) else ("metadata",)
    stored = batch.get("bank")
    if stored is None:
        return _each_date(encoder, batch["image"], batch, told)
    return _each_date(encoder.from_latents, stored.map("latent"), batch, told)  # type: ignore[arg-type]


def encode(encoder: nn.Module, batch: Mapping[str, Any]) -> FeatureBank:
    """What goes into the encoder's UNet of a batch of images."""
    return _each_date(encoder.encode, batch["image"], batch)  # type: ignore[arg-type]


def _each_date(reads: Reads, values: Tensor, batch: Mapping[str, Any], told: tuple[str, ...] = ()) -> FeatureBank:
    ids, dates = batch["id"], batch.get("dates")
    given: dict[str, Any] = {name: batch.get(name) for name in told}
    if values.ndim == 4:
        if given.get("dates") is not None:
            given["dates"] = given["dates"][:, 0]
        return reads(values, sample_ids=ids, **given)
    samples, count = values.shape[:2]
    if dates is not None and tuple(dates.shape) != (samples, count):
        raise UserError(
            f"sample {ids[0]} has {count} images and {tuple(dates.shape)[1:]} dates: give one date for each image"
        )
    everywhere = torch.arange(samples * count)
    where = everywhere if dates is None else everywhere[(dates >= 0).flatten().cpu()]
    if not len(where):
        raise UserError(f"sample {ids[0]} has no image at any of its dates: leave it out")
    spread = {name: None if value is None else _spread(value, name, count) for name, value in given.items()}
    flat, banks = values.flatten(0, 1), []
    # without gradients, no more at once than a batch of single images takes
    for some in where.split(len(where) if torch.is_grad_enabled() else samples):
        rows = {name: None if value is None else value[some.to(value.device)] for name, value in spread.items()}
        names = [ids[number // count] for number in some.tolist()]
        banks.append(reads(flat[some.to(flat.device)], sample_ids=names, **rows))
    found = banks[0] if len(banks) == 1 else FeatureBank.cat(banks)
    spec = replace(found.spec, dates=count)
    return FeatureBank(spec, {tap: _unfolded(maps, where, samples, count) for tap, maps in found.items()})


def _spread(value: Tensor, name: str, count: int) -> Tensor:
    """For each image what it has, or what its sample has."""
    each = name == "dates" or value.ndim == 3
    return value.flatten(0, 1) if each else value.repeat_interleave(count, 0)


def _unfolded(maps: Tensor, where: Tensor, samples: int, count: int) -> Tensor:
    if len(where) < samples * count:
        maps = maps.new_zeros(samples * count, *maps.shape[1:]).index_copy(0, where.to(maps.device), maps)
    return maps.unflatten(0, (samples, count))
