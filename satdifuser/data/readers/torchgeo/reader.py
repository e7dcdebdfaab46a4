"""Any data set of torchgeo's that has images and a label: its class reads the files, and a YAML says what it does not.

The numbers of its `image` are as they are stored; which band they are is asked by name, and what they are worth is
`scaling`. Facts of each set are in configs/facts/torchgeo.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Len

from satdifuser.data.bands import NOT_GIVEN, SensorName, find_sensor
from satdifuser.data.classes import ClassWords
from satdifuser.data.dates import day_of
from satdifuser.data.files.fitting import BadImageError
from satdifuser.data.files.names import shown
from satdifuser.data.readers.base import Answer, Array, Raw, Reader
from satdifuser.data.readers.torchgeo.found import Channels, class_names, described, lacking, listed_times
from satdifuser.data.readers.torchgeo.held import held_by
from satdifuser.data.readers.torchgeo.lists import names_of, share_of
from satdifuser.data.readers.torchgeo.opening import OF_PARTS, class_of, opened, part_of
from satdifuser.data.readers.torchgeo.own import DATES, SAMPLES, of_class
from satdifuser.data.readers.torchgeo.windows import Scenes, Window, by_coordinates, size_of, windows
from satdifuser.errors import UserError
from satdifuser.kinds import Above, Place, Side, Word, checked

Named = Annotated[str, Len(1)]
Names = Annotated[dict[str, Any], Word("names with values")]
KEYS = {"label": "label", "multilabel": "label", "mask": "mask", "target": "label"}


class TorchGeo(Reader):
    """The samples of a split of a data set of torchgeo.datasets, ordered by their ids.

    `channels` says which names the channels of an image have: those of an attribute of the class (`all_bands`), or a
    list. `bands` says which of these the sensor's bands are, where they are not called alike. `parts` says what train,
    val and test are: arguments of the class, and a `share` of its samples by a hash of their ids.
    """

    name = "torchgeo"

    @checked("data")
    def __init__(
        self,
        root: Place,
        dataset: Named,
        split: str = "train",
        *,
        torchgeo: Named | None = None,
        given: Names | None = None,
        arguments: Names | None = None,
        parts: Names | None = None,
        group: Named | None = None,
        download: bool = False,
        channels: Names | None = None,
        bands: dict[str, str] | None = None,
        series: Annotated[list[str | int], Len(1)] | None = None,
        key: Named | None = None,
        ids: Named | Names | None = None,
        times: Named | None = None,
        tile: bool = False,
        holds: str | None = None,
        get: str | None = None,
        sensor: SensorName = NOT_GIVEN,
        size: Side = 1,  # none is given
        label: Answer | None = None,
        classes: ClassWords | Named | None = None,
        **above: Above,
    ) -> None:
        self.split, self.title, self.times, self.series = split, dataset, times, series
        cls = class_of(torchgeo or dataset)
        self.root = os.path.abspath(os.path.expanduser(root))  # noqa: PTH100, PTH111
        part = part_of(parts, split, cls)
        self.share = part.get("share")
        self.shares = [one["share"] for one in (parts or {}).values() if one and "share" in one]
        said = {name: value for name, value in part.items() if name not in OF_PARTS}
        self.arguments = {**(given or {}), **said, **(arguments or {})}
        made = opened(cls, self.root, self.arguments, download, holds, get)
        self.made = Scenes(made) if by_coordinates(made) else made
        if not len(self.made):
            raise UserError(
                f"{shown(self.root)} has no samples of {dataset} for {split}: it must hold {holds or held_by(cls)}"
            )
        self.key = key or ("mask" if label == "mask" else KEYS.get(str(label), ""))
        wanted = {
            "sensor": None if sensor == NOT_GIVEN else sensor,
            "size": None if size == 1 else size,
            "scaling": above.get("scaling"),
        }
        if channels is None and label is None:
            wanted["label"] = None
        missing = [name for name, value in wanted.items() if value is None]
        if label not in (None, "target") and classes is None:
            missing.append("classes")
        if missing:
            raise UserError(lacking(dataset, missing, self.made))
        numbers = above["scaling"]
        if numbers == "auto" or (isinstance(numbers, dict) and numbers.get("numbers", "auto") == "auto"):
            raise UserError(
                "data.scaling is auto, but torchgeo makes floating point of all numbers: say what they are, as"
                f" 8bit, dn, as_is or power; {described(self.made)}"
            )
        known = find_sensor(sensor)
        self.channels = Channels(self.made, known, channels, bands, series)
        names, self.windows, self.rule = self._listed(ids, group, size, tile)
        super().__init__(
            names, sensor=known, size=size, label=label, classes=class_names(self.made, classes, label), **above
        )

    def _listed(self, ids: Any, group: str | None, size: int, tile: bool) -> tuple[list[str], dict[str, Window], str]:
        """The ids of the split in their order, and which part of what each is."""
        names, values, rule = names_of(
            self.made, len(self.made), self.root, "files" if ids is None and isinstance(self.made, Scenes) else ids
        )
        kept = set(names) if self.share is None else share_of(names, self.share, group, self.shares)
        if not kept:
            raise UserError(
                f"data.parts.{self.split} has no sample of {self.title}: of {len(names)} none lies in the share"
                f" {self.share}; give a larger one"
            )
        found: dict[str, Window] = {}
        self.paths: dict[str, Path] = {}
        for index, name in sorted(enumerate(names), key=lambda one: one[1]):
            if name not in kept or name in self.paths:  # twice in a list of the set's own
                continue
            path = _path(values[index], self.root)
            self.paths[name] = path or Path()
            if isinstance(self.made, Scenes):
                height, width = self.made.size(index)
            elif tile:
                height, width = size_of(path)
            else:
                found[name] = Window(index)
                continue
            found |= {f"{name}/{at}": window for at, window in windows(index, height, width, size)}
        return list(found), found, rule

    @property
    def about(self) -> dict[str, Any]:
        return {
            "data set": self.title,
            "class": type(getattr(self.made, "dataset", self.made)).__name__,
            "arguments": self.arguments,
            "split": self.split,
            "share": self.share,
            "ids": self.rule,
            "in the files": self.channels.said,
            "label of": self.key,
            "times": self.times,
        }

    def fingerprint(self) -> str:
        if self.files(self.names[0]):
            return super().fingerprint()
        found = hashlib.blake2b(digest_size=8)
        for place in sorted({0, len(self.names) // 2, len(self.names) - 1}):
            for values in self.read(self.names[place]).bands:  # what they answer is in the identity beside it
                found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()

    def files(self, name: str) -> Sequence[Path]:
        path = self.paths.get(name) or self.paths.get(name.rpartition("/")[0])
        return [path] if path is not None and path.is_file() else []

    def read(self, name: str) -> Raw:
        window = self.windows[name]
        sample = self._sample(window)
        images = self.channels.images(sample)
        dates = None
        if images[0].ndim == 3:
            count = len(images[0])
            days = self._days(window.of, sample, count)
            order = np.argsort(days or np.arange(count), kind="stable")[self.pick(count)]
            images, dates = [image[order] for image in images], days and [days[place] for place in order]
        answer = self._answer_in(sample)
        if window.side is not None and not isinstance(self.made, Scenes):
            images = [image[..., window.rows, window.columns] for image in images]
            if isinstance(answer, np.ndarray) and answer.ndim == 2:
                answer = answer[window.rows, window.columns]
        return Raw(images, answer, dates=dates)

    def answer(self, name: str) -> Any:
        window = self.windows[name]
        folders = self._folders
        if folders is not None and self.label == "label":
            return folders[self.made.imgs[window.of][1]]
        answer = self._answer_in(self._sample(window))
        if window.side is not None and isinstance(answer, np.ndarray) and not isinstance(self.made, Scenes):
            return answer[window.rows, window.columns]
        return answer

    @property
    def _folders(self) -> Sequence[str] | None:
        """The classes of a tree of folders, of which torchgeo numbers those that are there."""
        return list(self.made.classes) if hasattr(self.made, "imgs") and hasattr(self.made, "class_to_idx") else None

    def _sample(self, window: Window) -> dict[str, Any]:
        """What the class gives; of a large image the last one is kept, for the windows that follow."""
        if isinstance(self.made, Scenes):
            return self.made.read(window)
        last = self.__dict__.get("_last")
        if window.side is not None and last is not None and last[0] == window.of:
            return dict(last[1])
        own = of_class(SAMPLES, self.made)
        found: dict[str, Any] = self.made[window.of] if own is None else own(self.made, window.of)
        if window.side is not None:
            self.__dict__["_last"] = (window.of, found)
        return found

    def _days(self, index: int, sample: dict[str, Any], count: int) -> list[int] | None:
        own = of_class(DATES, self.made)
        found = own(self.made, index) if own is not None and self.times is None else None
        if found is None and self.times is not None:
            found = listed_times(self.made, self.times, index, sample)
        if found is None:
            return None  # nothing is known but their order
        if len(found) != count:
            raise BadImageError(f"has {count} images and {len(found)} dates")
        return [day_of(value) for value in found]

    def _answer_in(self, sample: dict[str, Any]) -> Any:
        """The label where `key` says it is, as numbers."""
        if self.label is None:
            return None
        key, *rest = self.key.split(".")
        if key not in sample:
            raise BadImageError(
                f"has no {key!r}: it has {', '.join(sample)}; set data.key to where its {self.label} is"
            )
        value: Array = np.asarray(sample[key])
        for place in rest:
            value = value[int(place)]
        if self.label == "mask" or (self.label == "target" and value.ndim > 1):
            return value[0] if value.ndim == 3 and len(value) == 1 else value
        if self.label == "multilabel":
            return value
        value = value.reshape(-1)
        if len(value) != 1:
            raise BadImageError(
                f"has {len(value)} numbers in {key!r}, but data.label={self.label} is one: set data.key"
            )
        folders = self._folders
        return folders[int(value[0])] if folders is not None and self.label == "label" else value[0].item()


def _path(value: Any, root: str) -> Path | None:
    """The file of a sample, where the class names it."""
    value = value[0] if isinstance(value, tuple) and value else value
    if not isinstance(value, str | os.PathLike):
        return None
    path = Path(root) / os.fspath(value).strip()
    return path if path.is_file() else None
