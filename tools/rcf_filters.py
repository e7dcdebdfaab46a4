"""Cut filters for encoder=rcf from the training images of a data set: whitened patches (MOSAIKS), in one file.

python tools/rcf_filters.py filters.safetensors data=image_folder data.root=EuroSAT_RGB encoder.features=512
satdifuser train encoder=rcf encoder.filters=filters.safetensors encoder.features=512 data=image_folder ...
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from satdifuser.baselines.rcf import cut, whitened
from satdifuser.build import build_data
from satdifuser.config import compose
from satdifuser.data.policy import resolved


class Prepared(Sequence[torch.Tensor]):
    """The training images as the encoder sees them, read when they are asked for."""

    def __init__(self, data: object, prepare: torch.nn.Module) -> None:
        self.data, self.prepare = data, prepare

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> torch.Tensor:  # type: ignore[override]
        sample = self.data[int(index)]  # type: ignore[index]
        image = sample["image"] if sample["image"].ndim == 3 else sample["image"][0]  # the first of several dates
        return self.prepare(image[None], [sample["id"]])[0]


def main(words: Sequence[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where the filters go")
    parser.add_argument("overrides", nargs="*", help="of satdifuser train: data=..., encoder.features=..., seed=...")
    given = parser.parse_args(words)
    settings = compose("train", ["encoder=rcf", "encoder.filters=gaussian", *given.overrides])
    part = resolved(settings.encoder, settings.data)
    images = Prepared(build_data(settings.data, "train"), part["prepare"].build())
    number, kernel = part["features"] // 2, part["kernel"]
    filters = torch.from_numpy(whitened(cut(images, number, kernel, settings.seed))).float()
    about = {"images": str(len(images)), "seed": str(settings.seed), "prepare": json.dumps(part["prepare"].plain())}
    given.file.parent.mkdir(parents=True, exist_ok=True)
    aside = given.file.with_name(f".{given.file.name}")
    save_file({"filters": filters}, aside, metadata=about)
    aside.replace(given.file)
    print(f"wrote {given.file}: {number} filters of {kernel} px from {len(images)} training images")
    return given.file


if __name__ == "__main__":
    main()
