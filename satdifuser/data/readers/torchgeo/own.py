"""What some of torchgeo's classes leave out, or do in a way that is not ours: each in a function of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from satdifuser.data.files.tree import warn_once


def pastis_dates(dataset: Any, index: int) -> list[Any] | None:
    """The days of a patch's images, which are in PASTIS's table and which torchgeo does not read."""
    of_patches = dataset.__dict__.get("_satdifuser_dates")
    if of_patches is None:
        text = (Path(dataset.root) / dataset.directory / "metadata.geojson").read_text("utf-8")
        key = {"s2": "dates-S2", "s1a": "dates-S1A", "s1d": "dates-S1D"}[
            dataset.image_key if hasattr(dataset, "image_key") else dataset.bands
        ]
        of_patches = {}
        for one in json.loads(text)["features"]:
            said = one["properties"].get(key)
            said = json.loads(said) if isinstance(said, str) else said
            if said:
                of_patches[int(one["properties"]["ID_PATCH"])] = [said[name] for name in sorted(said, key=int)]
        dataset.__dict__["_satdifuser_dates"] = of_patches
    if not of_patches:
        warn_once("PASTIS's metadata.geojson has no dates: its images are in their order, and no more is known")
    return of_patches.get(int(dataset.idxs[index]))


def skippd_sample(dataset: Any, index: int) -> dict[str, Any]:
    """Image and power, without the file of times, which torchgeo unpickles for each sample."""
    import h5py
    import torch

    with h5py.File(Path(dataset.root) / dataset.data_file_name.format(dataset.task), "r") as file:
        power = float(file[dataset.split]["pv_log"][index])
    return {"image": dataset._load_image(index), "label": torch.tensor(power)}


def landsat_sample(dataset: Any, index: int) -> dict[str, Any]:
    """Image and mask with the codes of the product: torchgeo 0.10 numbers them otherwise than 0.8, from water on."""
    import rasterio
    import torch

    image, mask = dataset.sample_collection[index]
    with rasterio.open(mask) as file:
        return {"image": dataset._load_image(image), "mask": torch.from_numpy(file.read(1)).long()}


DATES = {"PASTIS": pastis_dates, "PASTIS100": pastis_dates}
SAMPLES = {"SKIPPD": skippd_sample, "SSL4EOLBenchmark": landsat_sample}


def of_class(table: dict[str, Any], dataset: Any) -> Any:
    """What is said of a class or of one that it comes from."""
    return next((table[cls.__name__] for cls in type(dataset).__mro__ if cls.__name__ in table), None)
