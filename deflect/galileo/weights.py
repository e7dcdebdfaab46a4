"""Galileo's files: encoder.pt with its config.json and normalization.json, or none of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deflect.backbones.loading import NONE, built
from deflect.backbones.weights import load_state, read_weights
from deflect.galileo.channels import CHANNELS
from deflect.galileo.network import Galileo, Shape
from satdifuser.bank import BankError

MODELS = {"nano": Shape(128, 4, 8), "tiny": Shape(192, 12, 3), "base": Shape(768, 12, 12)}
FILES = ("encoder.pt", "config.json", "normalization.json")
RESTING = re.compile(r"(space_embed|time_embed|static_embed|sp_channel_embed|t_channel_embed|st_channel_embed)(\.|$)")
"""Of elevation, land cover, weather and place, which features of images alone do not pass through."""
OURS = (
    (r"(^|\.)backbone(?=\.)", ""),  # some copies have it in their names
    (r"^\.", ""),
    (r"\.attn\.(q|k|v)\.", r".attn.to_\1."),
    (r"^space_time_embed\.(\w+)\.proj\.", r"embed.\1."),
    (r"^s_t_channel_embed$", "channel_embed"),
    (r"^pos_embed$", "date_embed"),
    (r"^month_embed\.weight$", "month_embed"),
)
MEANS = (
    *(-11.728724389184965, -18.85558188024017, 1395.3408730676722, 1338.4026921784578, 1343.09883810357),
    *(1543.8607982512297, 2186.2022069512263, 2525.0932853316694, 2410.3377187373408, 2750.2854646886753),
    *(2234.911100061487, 1474.5311266077113),
)
DEVIATIONS = (
    *(4.887145774840316, 5.730270320384293, 917.7041440370853, 913.2988423581528, 1092.678723527555),
    *(1047.2206083460424, 1048.0101611156767, 1143.6903026819996, 1098.979177731649, 1204.472755085893),
    *(1145.9774063078878, 980.2429840007796),
)
"""Of the channels but NDVI, as published: dB, and reflectance x 10000."""


def galileo(weights: str, model: str, seed: int) -> tuple[Galileo, Path | None]:
    """The network, and the file that its weights came from. `weights`: none, a folder, or a file."""
    if model not in MODELS:
        raise BankError(f"no Galileo is called {model!r}: there are {', '.join(MODELS)}")
    if weights == NONE:
        return built(lambda: Galileo(MODELS[model]), seed, f"Galileo {model}"), None
    path = Path(weights).expanduser()
    file = path / "encoder.pt" if path.is_dir() else path
    if not file.is_file():
        raise BankError(
            f"no file {file}: Galileo's weights are a folder of {', '.join(FILES)} of one size; set GALILEO_WEIGHTS, or"
            " encoder.weights, to it, or encoder.weights=none for a network without them"
        )
    state = _renamed(read_weights(file))
    network = built(lambda: Galileo(_described(file, model)), seed, f"Galileo {model}")
    load_state(network, state, file)
    return network, file


def statistics(file: Path | None) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel but NDVI: those of normalization.json beside the file, else the published."""
    means, deviations = list(MEANS), list(DEVIATIONS)
    path = None if file is None else file.parent / "normalization.json"
    if path is not None and path.is_file():
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))[str(len(CHANNELS))]
            means, deviations = ([float(x) for x in entry[name]][: len(MEANS)] for name in ("mean", "std"))
            if min(len(means), len(deviations)) < len(MEANS) or min(deviations) <= 0:
                raise ValueError("a mean and a deviation above 0 for each channel are not there")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BankError(
                f"{path} is no normalisation of Galileo ({error}): fetch it again, or take it away"
            ) from error
    return torch.tensor(means, dtype=torch.float64), torch.tensor(deviations, dtype=torch.float64)


def _renamed(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names, without those that rest."""
    state = {}
    for name, value in found.items():
        for theirs, ours in OURS:
            name = re.sub(theirs, ours, name)
        if not RESTING.match(name):
            state[name] = value
    return state


def _described(file: Path, model: str) -> Shape:
    """The sizes in the config.json beside a file; those of another model than was asked for are an error."""
    path, known = file.parent / "config.json", MODELS[model]
    if not path.is_file():
        return known
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
        config = config.get("model", config)
        config = config.get("encoder", config)
        shape = Shape(
            width=int(config["embedding_size"]),
            depth=int(config["depth"]),
            heads=int(config["num_heads"]),
            mlp=float(config["mlp_ratio"]),
            kernel=int(config["max_patch_size"]),
            dates=int(config["max_sequence_length"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BankError(f"{path} does not describe a Galileo ({error}): fetch it again, or take it away") from error
    if shape != known:
        name = next((name for name, other in MODELS.items() if other == shape), None)
        if name is None and shape.width % 32 == 0 and shape.width % shape.heads == 0:
            return shape  # one of somebody's own training
        remedy = f"set encoder.model={name}" if name else "its width must be a multiple of 32 and of its heads"
        raise BankError(f"{path} describes another model than {model}: {remedy}")
    return shape
