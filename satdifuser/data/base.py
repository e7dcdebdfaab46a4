"""The contract of a data set: samples with an id, an image in its sensor's units, labels, dates and metadata."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

from torch import Tensor


class Sample(TypedDict, total=False):
    """One sample. `id` and `image` are always there; a task asks for the label that it learns."""

    id: str
    image: Tensor  # float32 [bands, H, W], or [T, bands, H, W] of several dates; in the sensor's units, 0 is no data
    dates: Tensor  # int64 [T], days since 1970-01-01; -1 is an image that is not there
    mask: Tensor  # int64 [H, W], class numbers or the ignore index
    label: Tensor  # int64 [], the class of the whole image
    multilabel: Tensor  # float32 [classes], 0 or 1
    target: Tensor  # float32 [], the value to regress, or [H, W], one for each pixel; NaN counts nowhere
    metadata: Tensor  # float32 [n], numbers that a model is conditioned on (DiffusionSat's seven: where, when, how)


LABELS = ("mask", "label", "multilabel", "target")
Batch = dict[str, Any]


@dataclass(frozen=True)
class Labels:
    """Names and colours of the classes, and the mask value that no loss or metric counts."""

    classes: tuple[str, ...]
    colours: tuple[str, ...]
    ignore_index: int = 255

    def to_dict(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "colours": list(self.colours), "ignore_index": self.ignore_index}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Labels:
        return cls(tuple(values["classes"]), tuple(values["colours"]), int(values["ignore_index"]))


class MapStyle(ABC):  # noqa: B024 (it is there to be asked)
    """Any class of samples by number, whatever else its objects have: what can stand as `data`."""

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        return hasattr(other, "__len__") and hasattr(other, "__getitem__")


class LabelledDataset(Protocol):
    """What extract, train and eval need of a data set, whether it renders scenes, reads files or reads features.

    A class whose `identity` tells samples from others wherever they lie names its settings that say where in `places`.
    """

    name: str
    labels: Labels

    @property
    def identity(self) -> dict[str, Any]: ...

    def sample_id(self, index: int) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...
