"""What all readers of files have in common: from what a file holds to a sample, checked and scaled once.

A reader names its samples and reads one (`read`); grids, sizes, scale, no data, classes, dates and errors are here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.base import Batch, LabelledDataset, Labels, Sample
from satdifuser.data.classes import ClassTable, ClassWords
from satdifuser.data.dates import NO_DATE
from satdifuser.data.files.contents import LOOKED_AT, contents
from satdifuser.data.files.fitting import AGAIN, SKIP, BadImageError, Fit, Fitting
from satdifuser.data.files.names import name_bytes, shown
from satdifuser.data.readers.grids import nearest_to, on_one_grid
from satdifuser.data.scaling import Scaling, ScalingWords
from satdifuser.data.splits.budgets import Within
from satdifuser.data.splits.evenly import evenly
from satdifuser.errors import UserError
from satdifuser.kinds import Count, Side, checked

Array = np.ndarray[Any, Any]
Answer = Literal["label", "multilabel", "mask", "target"]


@dataclass
class Raw:
    """A sample as its files have it, each band on the grid that it has."""

    bands: Sequence[Array]
    """Of each of the sensor's bands `[h, w]`, or `[T, h, w]` of several dates; numbers as they are stored."""
    answer: Any = None
    """A number or name (label), a list or an array of 0 and 1 (multilabel), a mask, a number or a map of them."""
    blank: Sequence[Array | None] = field(default=())
    """Where a band has no data; none or nothing: everywhere is some."""
    own: Sequence[tuple[float | None, float]] = field(default=())
    """Each band's scale and offset as its file says them, (None, 0.0) where it says none; or nothing."""
    dates: Sequence[int] | None = None
    """Days since 1970-01-01, one for each image."""
    metadata: Sequence[float] | None = None


class Reader(Dataset[Sample]):
    """Samples of a split, in an order; a reader gives `names` (their ids) to this and has a `read`.

    `scaling` is what a number is worth; where a band is one of `nodata`, or NaN where `nan=nodata`, is no data (0).
    A sample of several dates has at most `dates` of them, evenly, and blank ones at its end if it has fewer.
    """

    name: str
    places: tuple[str, ...] = ("root", "descriptions")  # settings that change no sample

    @checked("data")
    def __init__(
        self,
        names: Sequence[str],
        *,
        sensor: SensorName,
        size: Side,
        label: Answer | None = None,
        classes: ClassWords | None = None,
        ignore: list[int] | int | None = None,
        scaling: ScalingWords | None = None,
        nodata: list[float] | float | None = None,
        nan: Literal["error", "nodata"] = "error",
        fit: Fit = "none",
        dates: Count | None = None,
        limit: Count | None = None,
    ) -> None:
        self.sensor, self.size, self.fit, self.label, self.dates = find_sensor(sensor), size, fit, label, dates
        self.fitting = Fitting(self.sensor, size, fit)
        self.scaling = Scaling.of("auto" if scaling is None else scaling)
        self.scaling.check_bands(self.sensor)
        self.nodata, self.nan = _listed(nodata), nan
        self.table = ClassTable(classes or (), _listed(ignore))
        self.labels = self.table.labels if label != "target" else Labels((), ())
        if label not in (None, "target") and not self.labels.classes:
            raise UserError(f"data.classes is not set, and data.label={label} needs the names of its classes")
        self.names = evenly(names, limit)

    # What a reader of its own says.

    def read(self, name: str) -> Raw:
        """The sample of this name, as its files have it."""
        raise NotImplementedError

    def answer(self, name: str) -> Any:
        """The answer alone; a reader that need not read the image for it does not."""
        return self.read(name).answer

    def files(self, name: str) -> Sequence[Path]:
        """The files that a sample comes from, the first of which is named in errors."""
        return ()

    def where(self, name: str) -> str:
        """What an error calls a sample: its first file."""
        files = self.files(name)
        return shown(files[0]) if files else f"sample {shown(name)}"

    @property
    def about(self) -> dict[str, Any]:
        """What else of its settings decides which samples they are or how they are read, for `identity`."""
        return {}

    def fingerprint(self) -> str:
        """What is in some of the files of the split: of each sample that is looked at, in all."""
        some = evenly(self.names, LOOKED_AT)
        found = list(dict.fromkeys(file for name in some for file in self.files(name)))
        return contents(found)

    def _answered(self) -> str:
        """What some of the samples answer, whose files need not be known."""
        found = hashlib.blake2b(digest_size=8)
        for name in evenly(self.names, LOOKED_AT) if self.label is not None else ():
            with suppress(Exception):  # what cannot be read is for its reader to say
                value = self.answer(name)
                numbers = np.asarray(value) if not isinstance(value, Tensor) else value.numpy()
                found.update(numbers.tobytes() if numbers.dtype.kind in "biuf" else str(value).encode())
        return found.hexdigest()

    # What follows from it.

    @property
    def identity(self) -> dict[str, Any]:
        """Which samples they are and how they are read, wherever they lie."""
        return {
            "name": self.name,
            **self.about,
            "samples": len(self.names),
            "names": hashlib.blake2b(name_bytes("\n".join(self.names)), digest_size=8).hexdigest(),
            **self._contents,
            "label": self.label,
            **self.table.to_dict(),
            "sensor": self.sensor.name,
            "bands": list(self.sensor.names),
            "scaling": self.scaling.to_dict(),
            "nodata": list(self.nodata),
            "nan": self.nan,
            "size": self.size,
            "fit": self.fit,
            **({} if self.dates is None else {"dates": self.dates}),
        }

    @cached_property
    def _contents(self) -> dict[str, str]:
        return {"contents": self.fingerprint(), "answers": self._answered()}

    def sample_id(self, index: int) -> str:
        return shown(self.names[index])

    def read_labels(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Batch:
        """Ids and labels; no image is read where the reader can do without."""
        batch: Batch = {"id": [self.sample_id(index) for index in indices]}
        if self.label is not None and (names is None or self.label in names):
            found = []
            for name in (self.names[index] for index in indices):
                with self._naming(name):
                    found.append(self._answer(self.answer(name)))
            batch[self.label] = torch.stack(found)
        return batch

    def subset(self, indices: Sequence[int]) -> LabelledDataset:
        return Within(self, indices)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        name = self.names[index]
        with self._naming(name):
            raw = self.read(name)
            sample: Sample = {"id": name, "image": self._image(raw)}
            if raw.dates is not None:
                sample["dates"] = self._dates(raw)
            if raw.metadata is not None:
                sample["metadata"] = torch.tensor(list(raw.metadata), dtype=torch.float32)
            if self.label is not None:
                sample[self.label] = self._answer(raw.answer, grid_of(raw))
        return sample

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Whatever is found wrong with a sample is one line that names its file."""
        files, where = self.files(name), self.where(name)
        try:
            yield
        except BadImageError as fault:
            raise UserError(f"{where} {fault} {SKIP}") from fault
        except (UserError, ModuleNotFoundError):
            raise
        except FileNotFoundError as error:
            lost = shown(error.filename or where)
            raise UserError(f"{lost} is not there, but sample {shown(name)} needs it: {AGAIN} {SKIP}") from error
        except Exception as error:  # damaged files make their libraries raise all kinds
            reason = shown(" ".join(str(error).replace(str(files[0]) if files else where, "the file").split()))
            raise UserError(f"{where} cannot be read ({reason}): replace or remove it {SKIP}") from error

    def _image(self, raw: Raw) -> Tensor:
        """float32 `[bands, H, W]`, or `[T, bands, H, W]` of several dates, in the sensor's units; 0 is no data."""
        if len(raw.bands) != len(self.sensor):
            self.fitting.check(len(raw.bands), *grid_of(raw))
        blanks, owns = raw.blank or [None] * len(raw.bands), raw.own or [(None, 0.0)] * len(raw.bands)
        scaled = []
        for band, numbers, blank, own in zip(self.sensor, raw.bands, blanks, owns, strict=True):
            gone = self._blank(numbers) if blank is None else self._blank(numbers) | blank
            gone = gone | self.scaling.blank(numbers, band)
            values = self.scaling.apply(numbers, band, *own)
            values[np.broadcast_to(gone, values.shape)] = 0.0
            scaled.append((values, gone))
        image = on_one_grid(scaled, self.fitting, grid_of(raw))
        if raw.dates is None or self.dates is None or image.ndim == 3:
            return image
        absent = self.dates - len(image)
        return image if absent <= 0 else torch.cat([image, image.new_zeros(absent, *image.shape[1:])])

    def _blank(self, numbers: Array) -> Array:
        blanks = np.asarray(self.nodata)
        if numbers.dtype.kind == "f":  # a file of float32 has what -999.9 is there
            blanks = blanks.astype(numbers.dtype)
        gone = np.isin(numbers, blanks) if self.nodata else np.zeros(numbers.shape, bool)
        return gone | np.isnan(numbers) if self.nan == "nodata" and numbers.dtype.kind == "f" else gone

    def _dates(self, raw: Raw) -> Tensor:
        given = list(raw.dates or ())
        return torch.tensor(given + [NO_DATE] * max(0, (self.dates or 0) - len(given)), dtype=torch.int64)

    def pick(self, count: int) -> list[int]:
        """Which of `count` dates are read: all, or `data.dates` of them, evenly."""
        wanted = count if self.dates is None else min(self.dates, count)
        return [(2 * place + 1) * count // (2 * wanted) for place in range(wanted)]

    def _answer(self, value: Any, grid: tuple[int, int] | None = None) -> Tensor:
        if value is None:
            raise BadImageError(f"has no {self.label}: set data.label to what the set has")
        if self.label == "mask":
            mask = value if isinstance(value, Tensor) else self.table.mask(np.asarray(value))  # or classes already
            return nearest_to(mask, self.fitting, grid, self.labels.ignore_index)
        if self.label == "label":
            return torch.tensor(self.table.label(value))
        if self.label == "multilabel":
            return self.table.several(value)
        target = torch.tensor(np.asarray(value, np.float32))
        if target.ndim == 2:
            return nearest_to(target, self.fitting, grid, float("nan"))
        if target.ndim or not bool(target.isfinite()):
            raise BadImageError(f"has the target {shown(str(value))[:40]}, which is no finite number or map of them")
        return target


def grid_of(raw: Raw) -> tuple[int, int]:
    """Height and width of the finest band."""
    return max(band.shape[-2] for band in raw.bands), max(band.shape[-1] for band in raw.bands)


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]
