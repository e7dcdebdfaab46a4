"""Prithvi of IBM and NASA from its published files: on one date it is a plain ViT of timm with fixed positions."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deflect.backbones.base import Backbone
from deflect.backbones.families import TimmFamily
from deflect.backbones.loading import NONE, assembled, built, shaping
from deflect.backbones.weights import encoder_part, load_state, read_weights
from satdifuser.bank import BankError
from satdifuser.kinds import Positive, Seed, Side

log = logging.getLogger(__name__)
BANDS = 6  # blue, green, red, narrow near infrared, short-wave infrared 1 and 2
COORDINATES = ("temporal_embed_", "location_embed_")  # scales of the embeddings of dates and places
FILTERS = "patch_embed.proj.weight"
FIRST = ((775.0, 1081.0, 1229.0, 2497.0, 2204.0, 1611.0), (1282.0, 1270.0, 1399.0, 1368.0, 1292.0, 1155.0))
SECOND = ((1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0), (2248.0, 2179.0, 2178.0, 1850.0, 1242.0, 1049.0))
DIGITAL = 10000.0  # of reflectance 1, in what its means and deviations are given


@dataclass(frozen=True)
class Published:
    """An architecture, its dates in pretraining, and the mean and deviation of its inputs (reflectance x 10000)."""

    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int = 16
    num_frames: int = 4
    input: tuple[Sequence[float], Sequence[float]] = SECOND

    @property
    def shape(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("embed_dim", "depth", "num_heads", "patch_size")}


MODELS = {
    "prithvi_100m": Published(768, 12, 12, num_frames=3, input=FIRST),  # Prithvi-EO-1.0, the others are 2.0
    "prithvi_100m_tl": Published(768, 12, 12),
    "prithvi_300m": Published(1024, 24, 16),
    "prithvi_300m_tl": Published(1024, 24, 16),
    "prithvi_600m": Published(1280, 32, 16, patch_size=14),
    "prithvi_600m_tl": Published(1280, 32, 16, patch_size=14),
    "prithvi_tiny_tl": Published(192, 12, 3, num_frames=1),
    "tiny": Published(64, 4, 4, num_frames=1),  # not published
}


class PrithviFamily(TimmFamily):
    """Prithvi on one date, which knows what its inputs were standardised with."""

    known: Published | None = None

    def advise(self, prepare: Any) -> None:
        """Say it if the input will be standardised otherwise than in pretraining."""
        if self.known is None:
            return
        given = [[float(x) for x in values] for values in (prepare.mean, prepare.std)]
        spans = [high - low for low, high in zip(prepare.lows, prepare.highs, strict=True)]
        means = [low + x * span for low, x, span in zip(prepare.lows, given[0], spans, strict=True)]
        found = [means, [x * span for x, span in zip(given[1], spans, strict=True)]]
        wanted = [[x / DIGITAL for x in values] for values in self.known.input]
        if len(found[0]) != BANDS or all(
            abs(x - y) <= 0.01 * y for xs, ys in zip(found, wanted, strict=True) for x, y in zip(xs, ys, strict=True)
        ):
            return
        mean, std = (json.dumps([round(x, 5) for x in values], separators=(",", ":")) for values in wanted)
        log.warning(
            "%s was pretrained on inputs of another mean and deviation (encoder=prithvi2 has those of Prithvi-EO-2.0):"
            " set encoder.prepare.low=0 encoder.prepare.high=1 encoder.prepare.mean=%s encoder.prepare.std=%s",
            self.facts.name,
            mean,
            std,
        )


def prithvi_vit(
    model: str,
    weights: str = NONE,
    *,
    image_size: Side,
    eps: Positive = 1e-5,
    seed: Seed = 0,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """Prithvi-EO-1.0 or 2.0 on images of one date, by name (`prithvi_100m`, `prithvi_300m`, ...).

    `weights`: `none` (random from `seed`), a published file, or the folder that it lies in; a `config.json` beside it
    is read. `eps` is of every LayerNorm: no file holds it. `options` change the shape, named as timm's
    VisionTransformer does.
    """
    from timm.models.vision_transformer import VisionTransformer

    if model not in MODELS:
        raise BankError(f"no Prithvi is called {model!r}: there are {', '.join(MODELS)}")
    known, file, found = MODELS[model], None, {}
    shape = {**known.shape, **shaping(options)}
    if weights != NONE:
        file = _file(Path(weights).expanduser())
        found, known = read_weights(file), _described(file, model, known, shape)
    width, patch = shape["embed_dim"], shape["patch_size"]
    if width % 16:
        raise BankError(f"{model} has a width of {width}: its position embeddings need a multiple of 16")
    norm = functools.partial(nn.LayerNorm, eps=eps)
    given = {"img_size": image_size, "in_chans": BANDS, "num_classes": 0, "qkv_bias": True, "norm_layer": norm}
    vit = built(lambda: VisionTransformer(**{**given, **shape}), seed, model)
    del vit.pos_embed  # a parameter of timm's, and here what never trains
    vit.register_buffer("pos_embed", positions(width, 1, image_size // patch, image_size // patch))
    normed = file is None or _load(vit, found, file, model)
    made = {**(options or {}), "eps": eps}
    backbone = assembled(PrithviFamily, vit, model, weights, seed, image_size, BANDS, normed, made)
    if isinstance(backbone, PrithviFamily) and file is not None:
        backbone.known = known
    return backbone


def positions(width: int, frames: int, height: int, columns: int) -> Tensor:
    """Prithvi's fixed position embeddings `[1, 1 + tokens, width]`, the tokens ordered by frame, row and column.

    Six sixteenths of the width say the column, six the row and four the frame; the class token has none.
    """
    part = width // 16
    across = _waves(6 * part, columns).expand(frames, height, -1, -1)
    down = _waves(6 * part, height)[:, None].expand(frames, -1, columns, -1)
    when = _waves(4 * part, frames)[:, None, None].expand(-1, height, columns, -1)
    tokens = torch.cat((across, down, when), dim=-1).flatten(0, 2)
    return torch.cat((torch.zeros(1, tokens.shape[1], dtype=tokens.dtype), tokens))[None].float()


def _waves(size: int, count: int) -> Tensor:
    """Sines, then cosines, of `count` places; their wavelengths go from 2 pi to 20000 pi."""
    rates = 10000.0 ** -(torch.arange(size // 2, dtype=torch.float64) / (size / 2))
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def _file(path: Path) -> Path:
    """The file of weights that a path names, or the only one in the folder that it names."""
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in (".pt", ".pth", ".bin", ".safetensors"))
    if len(files) != 1:
        count = f"{len(files)} files" if files else "no file"
        raise BankError(f"{path} has {count} of weights (.pt, .pth, .bin, .safetensors): name one as weights")
    return files[0]


def _described(file: Path, model: str, known: Published, shape: Mapping[str, Any]) -> Published:
    """A model as the config.json beside its file describes it; another architecture than the model's is an error."""
    path = file.parent / "config.json"
    if not path.is_file():
        return known
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config = config.get("pretrained_cfg", config)
        patch = config["patch_size"]
        says = {name: int(config[name]) for name in ("embed_dim", "depth", "num_heads")}
        says["patch_size"] = int(patch if isinstance(patch, int) else patch[-1])
        bands = int(config.get("in_chans", BANDS))
        frames = int(config.get("num_frames", known.num_frames))
        given = tuple(tuple(float(x) for x in config[name]) for name in ("mean", "std") if name in config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BankError(f"{path} does not describe a Prithvi ({error}): fetch it again, or take it away") from error
    if any(says[name] != shape[name] for name in says):
        name = next((name for name, other in MODELS.items() if other.shape == says), None)
        remedy = f"set encoder.backbone.model={name}" if name else f"no model here is {says}"
        raise BankError(f"{path} describes another model than {model}: {remedy}")
    if bands != BANDS:
        raise BankError(f"{path} describes a Prithvi of {bands} bands: those of {BANDS} are known here")
    usable = len(given) == 2 and all(len(values) == BANDS for values in given)
    return Published(**says, num_frames=frames, input=(given[0], given[1]) if usable else known.input)


def _load(vit: nn.Module, found: dict[str, Tensor], file: Path, model: str) -> bool:
    """A file's encoder into the model; what is fixed, or belongs to dates and places, is not taken from it."""
    own = vit.state_dict()
    state = encoder_part(found, own, file)
    left = sorted(name for name in state if name.startswith(COORDINATES))
    if left:
        log.info("%s: no dates and places are given, %s are left out", file, ", ".join(left))
    state = {name: value for name, value in state.items() if name not in left}
    filters = state.get(FILTERS)
    if filters is not None:
        state[FILTERS] = _flat_filters(filters, own[FILTERS], file, model)
    state["pos_embed"] = own["pos_embed"]  # the file's is for its own dates and image size
    return load_state(vit, state, file)


def _flat_filters(filters: Tensor, own: Tensor, file: Path, model: str) -> Tensor:
    """The patch embedding of one date; that of another model is an error that names it."""
    if filters.ndim != 5 or filters.shape[2] != 1:
        raise BankError(f"{file} is no Prithvi of one date a patch: {FILTERS} is {tuple(filters.shape)}")
    flat = filters[:, :, 0]
    if flat.shape != own.shape:
        width, bands, patch, _ = flat.shape
        same = (name for name, other in MODELS.items() if (other.embed_dim, other.patch_size) == (width, patch))
        name = next(same, None)
        remedy = f": set encoder.backbone.model={name}" if name and bands == BANDS else ""
        raise BankError(
            f"{file} has a width of {width} and patches of {patch} px of {bands} bands, not those of {model}{remedy}"
        )
    return flat
