"""Cut filters for encoder=rcf from the training images of a data set: whitened patches (MOSAIKS), in one file.

They are those of encoder.filters=patches, which needs no file; a file serves where the training images are not.
python tools/rcf_filters.py filters.safetensors data=image_folder data.root=EuroSAT_RGB encoder.features=512
satdifuser train encoder=rcf encoder.filters=filters.safetensors encoder.features=512 data=image_folder ...
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from satdifuser.baselines.patches import PATCHES, drawn
from satdifuser.config import compose
from satdifuser.data.policy import resolved


def main(words: Sequence[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where the filters go")
    parser.add_argument("overrides", nargs="*", help="of satdifuser train: data=..., encoder.features=..., seed=...")
    given = parser.parse_args(words)
    settings = compose("train", ["encoder=rcf", *given.overrides, f"encoder.filters={PATCHES}"])
    part = resolved(settings.encoder, settings.data)
    filters = drawn(part["filters"])
    assert filters is not None
    about = {"name": part["filters"], "seed": str(part["seed"]), "prepare": json.dumps(part["prepare"].plain())}
    given.file.parent.mkdir(parents=True, exist_ok=True)
    aside = given.file.with_name(f".{given.file.name}")
    save_file({"filters": filters}, aside, metadata=about)
    aside.replace(given.file)
    print(f"wrote {given.file}: {len(filters)} filters of {part['kernel']} px from the training images")
    return given.file


if __name__ == "__main__":
    main()
