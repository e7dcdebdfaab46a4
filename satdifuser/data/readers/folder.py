"""A tree of images on disk, a folder for each class (or none at all), as a labelled data set: JPEG, PNG and GeoTIFF."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Len
from torch import Tensor
from torch.utils.data import Dataset

from satdifuser.data.bands import SensorName, find_sensor
from satdifuser.data.base import Batch, LabelledDataset, Labels, Sample
from satdifuser.data.colours import colours
from satdifuser.data.files.contents import contents
from satdifuser.data.files.fitting import Fit, Fitting
from satdifuser.data.files.names import name_bytes, name_fault, shown
from satdifuser.data.files.reflectance import SKIP, read_image
from satdifuser.data.files.tree import by_class, find_root, warn_once
from satdifuser.data.splits.budgets import Within
from satdifuser.data.splits.holdout import check_split, held_out
from satdifuser.errors import UserError
from satdifuser.kinds import Count, Positive, Rate, Side, Word, checked


class ImageFolder(Dataset[Sample]):
    """The images below `root`; the first folder on the way to an image is its class, and images in `root` have none.

    A sample's id is its path below `root`. `split` is train, val, test (see `holdout.py` for the rule) or all.

    Numbers become reflectance: of 8 bits, 255 is `white`; of more, `digital` is a reflectance of 1; floating point is
    reflectance already; a scale in the file itself is what counts. An image of another size than `size` is refused
    (`fit=none`), cut from its middle (`crop`), or resized (`resize`). `classes` names the folders that count, in order;
    null: all, sorted. `limit` takes at most so many of the split, evenly from the classes.
    """

    name = "image_folder"
    places = ("root",)  # settings that say where the samples lie; which they are is in `identity`

    @checked("data")
    def __init__(
        self,
        root: Annotated[str, Len(1), Word("a path")],
        split: str = "train",
        *,
        sensor: SensorName,
        size: Side = 64,
        fit: Fit = "none",
        val: Rate = 0.1,
        test: Rate = 0.1,
        white: Positive = 0.275,
        digital: Positive = 10000.0,
        classes: Annotated[list[str | int], Len(1)] | None = None,
        limit: Count | None = None,
    ) -> None:
        check_split(split)
        self.root, self.split, self.size, self.fit = find_root(root), split, size, fit
        self.sensor, self.white, self.digital = find_sensor(sensor), float(white), float(digital)
        self.fitting = Fitting(self.sensor, size, fit)
        names = by_class(self.root, None if classes is None else [str(name) for name in classes])
        self.files = held_out(names, val, test)[split]
        if not self.files:
            raise UserError(
                f"data.root {shown(self.root)} has no images for {split}: of {_count(names)}, data.val={val} and"
                f" data.test={test} of each class leave none; set other shares, or add images"
            )
        if limit is not None:
            count = len(self.files)  # in the order of their classes
            self.files = [self.files[place * count // limit] for place in range(limit)] if limit < count else self.files
        known = tuple(names) if list(names) != [""] else ()
        self.labels = Labels(classes=known, colours=colours(len(known)))
        shows = {name.partition("/")[0] for name in self.files}
        absent = [name for name in known if name not in shows]
        if absent:
            some = ", ".join(absent[:5]) + f" and {len(absent) - 5} more" * (len(absent) > 5)
            warn_once(
                f"data.root {shown(self.root)} has no images of {some} for {split}: nothing is known of them there"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What a feature store records of where its samples come from: which files, not where they lie."""
        return {
            "name": self.name,
            "split": self.split,
            "files": len(self.files),
            "names and sizes": self._digest,
            "contents": self._contents,
            "classes": list(self.labels.classes),
            "size": self.size,
            "fit": self.fit,
            "white": self.white,
            "digital": self.digital,
        }

    @cached_property
    def _digest(self) -> str:
        sizes = (f"{name}\0{self._bytes(name)}" for name in self.files)
        return hashlib.blake2b(name_bytes("\n".join(sizes)), digest_size=8).hexdigest()

    def _bytes(self, name: str) -> int:
        """The size of a file; -1 of one that cannot be asked, which is for its reader to say."""
        try:
            return os.stat(f"{self.root}/{name}").st_size  # noqa: PTH116 (of each of perhaps 100,000)
        except OSError:
            return -1

    @cached_property
    def _contents(self) -> str:
        """Of some files: uncompressed images of one shape all have one size."""
        return contents(len(self.files), lambda place: self.root / self.files[place])

    def sample_id(self, index: int) -> str:
        return shown(self.files[index])

    def read_labels(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Batch:
        """Ids and classes, which are in the files' names: no image is read."""
        ids = [self.sample_id(index) for index in indices]
        if not self.labels.classes or (names is not None and "label" not in names):
            return {"id": ids}
        return {"id": ids, "label": torch.tensor([self._class(self.files[index]) for index in indices])}

    def subset(self, indices: Sequence[int]) -> LabelledDataset:
        return Within(self, indices)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        name = self.files[index]
        fault = name_fault(name)
        if fault is not None:
            raise UserError(f"{shown(self.root / name)} {fault}: rename it {SKIP}")
        image = read_image(self.root / name, self.fitting, self.white, self.digital)
        sample: Sample = {"id": name, "image": self._fitted(image)}
        if self.labels.classes:
            sample["label"] = torch.tensor(self._class(name))
        return sample

    def _class(self, name: str) -> int:
        return self.labels.classes.index(name.partition("/")[0])

    def _fitted(self, image: Tensor) -> Tensor:
        if tuple(image.shape[1:]) == (self.size, self.size):
            return image
        resized: Tensor = F.interpolate(image[None], (self.size, self.size), mode="bilinear", antialias=True)[0]
        return resized


def _count(names: dict[str, list[str]]) -> str:
    return f"{sum(map(len, names.values()))} images in {len(names)} classes"
