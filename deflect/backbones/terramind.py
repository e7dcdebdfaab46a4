"""TerraMind of IBM and ESA from its published files: the encoder of one modality of raw images, as a ViT of timm."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deflect.backbones.base import Backbone
from deflect.backbones.families import TimmFamily
from deflect.backbones.loading import NONE, assembled, built, shaping
from deflect.backbones.weights import load_state, read_weights
from satdifuser.bank import BankError
from satdifuser.kinds import Positive, Seed, Side

log = logging.getLogger(__name__)
Modality = Literal["S2L2A", "S2L1C", "S1GRD", "S1RTC", "RGB"]
L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
BANDS: dict[str, tuple[str, ...]] = {
    "S2L2A": tuple(name for name in L1C if name != "B10"),
    "S2L1C": L1C,
    "S1GRD": ("VV", "VH"),
    "S1RTC": ("VV", "VH"),
    "RGB": ("red", "green", "blue"),
}
NAMES = {"S2L2A": "sen2l2a", "S2L1C": "sen2l1c", "S1GRD": "sen1grd", "S1RTC": "sen1rtc", "RGB": "sen2rgb"}
EMBEDDINGS = "encoder_embeddings."


@dataclass(frozen=True)
class Published:
    """An architecture. `gated`: SwiGLU, and no bias in any layer; else a plain MLP with GELU, and biases."""

    embed_dim: int
    depth: int
    num_heads: int
    gated: bool

    @property
    def shape(self) -> dict[str, int]:
        """As timm names it."""
        return {"embed_dim": self.embed_dim, "depth": self.depth, "num_heads": self.num_heads, "patch_size": 16}


MODELS = {
    "terramind_v1_tiny": Published(192, 12, 3, gated=False),
    "terramind_v1_small": Published(384, 12, 6, gated=False),
    "terramind_v1_base": Published(768, 12, 12, gated=True),
    "terramind_v1_large": Published(1024, 24, 16, gated=True),
}


class TerraMindFamily(TimmFamily):
    """TerraMind on one modality, which knows the bands that its patch embedding was made for."""

    modality: str = "S2L2A"

    def advise(self, prepare: Any) -> None:
        """Say it if other bands, or the same in another order, go into the modality's patch embedding."""
        bands = tuple(band.name for band in prepare.inputs)
        wanted = BANDS[self.modality]
        if self.modality != "RGB" and bands != wanted and set(bands) <= {*L1C, "VV", "VH"}:
            log.warning(
                "%s: its patch embedding of %s was made for %s, but the input is %s",
                self.facts.name,
                self.modality,
                ",".join(wanted),
                ",".join(bands),
            )


class GatedMlp(nn.Module):
    """SwiGLU: one linear layer, through SiLU, opens and closes another one; a third brings both back."""

    def __init__(self, in_features: int, hidden_features: int, bias: bool = False, **_: Any) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features, bias=bias)
        self.fc2 = nn.Linear(hidden_features, in_features, bias=bias)
        self.fc3 = nn.Linear(in_features, hidden_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        opened: Tensor = self.fc2(nn.functional.silu(self.fc1(x)) * self.fc3(x))
        return opened


def terramind_vit(
    model: str,
    weights: str = NONE,
    *,
    image_size: Side,
    modality: Modality = "S2L2A",
    eps: Positive = 1e-6,
    seed: Seed = 0,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """TerraMind 1.0 by name (`terramind_v1_base`, tiny, small, large), on raw images of one modality.

    `weights`: `none` (random from `seed`) or a published file. Positions are computed for `image_size`, as the
    authors' code does for a model that is built for it. `options` change the shape (`embed_dim`, `depth`, `num_heads`,
    `patch_size`).
    """
    from timm.models.vision_transformer import VisionTransformer

    if model not in MODELS:
        raise BankError(f"no TerraMind is called {model!r}: there are {', '.join(MODELS)}")
    if modality not in BANDS:
        raise BankError(f"TerraMind has no modality {modality!r} here: there are {', '.join(BANDS)}")
    known = MODELS[model]
    shape = {**known.shape, **shaping(options)}
    width, patch, bands = shape["embed_dim"], shape["patch_size"], len(BANDS[modality])
    if width % 4:
        raise BankError(f"{model} has a width of {width}: its position embeddings need a multiple of 4")
    file = None if weights == NONE else Path(weights).expanduser()
    found = {} if file is None else read_weights(file)
    given: dict[str, Any] = {
        "img_size": image_size,
        "in_chans": bands,
        "num_classes": 0,
        "class_token": False,
        "global_pool": "",
        "qkv_bias": not known.gated,
        "proj_bias": not known.gated,
        "norm_layer": functools.partial(nn.LayerNorm, eps=eps, bias=False),
    }
    if known.gated:
        hidden = 2 * (4 * width) // 3  # two thirds of a plain MLP's: the same number of weights in three layers
        given["mlp_layer"] = _gated(hidden)
    vit = built(lambda: VisionTransformer(**{**given, **shape}), seed, model)
    del vit.pos_embed  # a parameter of timm's, and here what never trains
    vit.register_buffer("pos_embed", positions(width, image_size // patch))
    if file is not None:
        _load(vit, found, file, model, modality)
    made = {**(options or {}), "eps": eps, "modality": modality}
    backbone = assembled(TerraMindFamily, vit, model, weights, seed, image_size, bands, True, made)
    if isinstance(backbone, TerraMindFamily):
        backbone.modality = modality
    return backbone


def positions(width: int, side: int) -> Tensor:
    """TerraMind's fixed position embeddings `[1, side * side, width]`, the tokens ordered by row and column.

    The first half of the width says the row and the second the column: each sines, then cosines.
    """
    quarter = width // 4
    rates = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
    waves = torch.cat((angles.sin(), angles.cos()), dim=1)
    down = waves[:, None].expand(-1, side, -1)
    across = waves[None].expand(side, -1, -1)
    return torch.cat((down, across), dim=-1).flatten(0, 1)[None].float()


def _gated(hidden: int) -> Any:
    """What builds the gated MLP of a block: its width is not what timm would compute."""

    def make(in_features: int, bias: bool, **_: Any) -> GatedMlp:
        return GatedMlp(in_features, hidden, bias=bias)

    return make


def _load(vit: Any, found: Mapping[str, Tensor], file: Path, model: str, modality: str) -> None:
    """The encoder of a file and its embedding of one modality into the model; of the rest nothing is read."""
    ours = f"{EMBEDDINGS}untok_{NAMES[modality]}@224."
    root = next((name.partition(EMBEDDINGS)[0] for name in found if EMBEDDINGS in name), None)
    if root is None:
        raise BankError(f"{file} is no TerraMind: nothing in it is called {EMBEDDINGS}...")
    state = {name.removeprefix(root): value for name, value in found.items() if name.startswith(root)}
    embedding = {name.removeprefix(ours): value for name, value in state.items() if name.startswith(ours)}
    if not embedding.keys() >= {"proj.weight", "mod_emb"}:
        there = [kind for kind, name in NAMES.items() if f"{EMBEDDINGS}untok_{name}@224.proj.weight" in state]
        raise BankError(f"{file} has no raw images of {modality}: set encoder.backbone.modality ({', '.join(there)})")
    own = vit.state_dict()
    filters, patch = embedding["proj.weight"], vit.patch_embed.patch_size[0]
    width, bands = own["patch_embed.proj.weight"].shape[:2]
    if filters.shape != (width, patch * patch * bands):
        same = next((name for name, other in MODELS.items() if other.embed_dim == len(filters)), None)
        remedy = f": set encoder.backbone.model={same}" if same and same != model else ""
        raise BankError(f"{file} has a patch embedding of {tuple(filters.shape)}, not one of {model}{remedy}")
    renamed = {
        "patch_embed.proj.weight": filters.view(width, patch, patch, bands).permute(0, 3, 1, 2).contiguous(),
        "patch_embed.proj.bias": embedding["mod_emb"].flatten(),  # added to every token, as a bias is
        "pos_embed": own["pos_embed"],  # the file's is for 224 px
    }
    _check_positions(embedding.get("pos_emb"), file)
    for name, value in state.items():
        start, _, rest = name.partition(".")
        if start not in ("encoder", "encoder_norm"):
            continue
        if name.endswith("norm1.bias") or name.endswith("norm2.bias") or name == "encoder_norm.bias":
            if value.any():
                raise BankError(f"{file}: {name} is not 0, and TerraMind's norms have no bias: it is another model")
            continue
        renamed[f"blocks.{rest}" if start == "encoder" else f"norm.{rest}"] = value
    load_state(vit, renamed, file)


def _check_positions(places: Tensor | None, file: Path) -> None:
    """The file's own position embeddings must be what is computed here: else tokens would stand elsewhere."""
    if places is None:
        return
    side = round(places.shape[1] ** 0.5)
    if side**2 != places.shape[1] or not torch.allclose(places.float(), positions(places.shape[-1], side), atol=0.01):
        raise BankError(f"{file} has other position embeddings than TerraMind 1.0: it is another model")
