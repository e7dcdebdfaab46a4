"""The two doors for ViTs: any of timm, and torchgeo's geospatial ones, with weights of the library, a file, or none."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deflect.backbones import families
from deflect.backbones.base import Backbone, Facts
from deflect.backbones.weights import fingerprint, load_weights
from satdifuser.bank import BankError
from satdifuser.kinds import Count, Seed, Side
from satdifuser.shipped import ships

SMALL = Path(__file__).resolve().parent.parent / "weights" / "small"
NONE = "none"
LOADING = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "weights"}


def timm_vit(
    model: str,
    weights: str = NONE,
    *,
    image_size: Side,
    patch_size: Side | None = None,
    channels: Count = 3,
    seed: Seed = 0,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """Any ViT of timm. `weights`: `none` (random from `seed`), `pretrained` (timm's, from the hub), or a file."""
    import timm

    if not timm.is_model(model):
        near = ", ".join(difflib.get_close_matches(model, timm.list_models(), n=3))
        raise BankError(f"timm has no model {model!r}{'; it has ' + near + ', ...' if near else ''}")
    given = {**shaping(options), "img_size": image_size, "in_chans": channels, "num_classes": 0}
    if patch_size is not None:
        given["patch_size"] = patch_size

    def build() -> nn.Module:
        return timm.create_model(model, **given)

    vit = built(build, seed, f"timm's {model}")
    if weights == "pretrained":
        vit = _hub(lambda: timm.create_model(model, pretrained=True, **given), model)
    normed = weights in (NONE, "pretrained") or load_weights(vit, Path(weights).expanduser())
    if not isinstance(getattr(vit, "blocks", None), (nn.Sequential, nn.ModuleList)) or not hasattr(vit, "patch_embed"):
        raise BankError(f"timm's {model} is not a transformer of blocks: choose a vit_* model")
    return assembled(families.TimmFamily, vit, model, weights, seed, image_size, channels, normed, options)


def torchgeo_vit(
    model: str,
    weights: str = NONE,
    *,
    image_size: Side,
    channels: Count | None = None,
    seed: Seed = 0,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """A ViT of torchgeo, by the name of its function (`scalemae_large_patch16`) or class (`ScaleMAE`).

    `weights`: `none`, a torchgeo weights enum (`ScaleMAELarge16_Weights.FMOW_RGB`), or a file. `channels`: of a plain
    ViT; None is what its weights were trained on, or 3.
    """
    import torchgeo.models

    make = getattr(torchgeo.models, model, None)
    listed = set(torchgeo.models.list_models())
    if make is None or (model not in listed and not (isinstance(make, type) and issubclass(make, nn.Module))):
        known = [name for name in dir(torchgeo.models) if not name.startswith("_")]
        near = ", ".join(difflib.get_close_matches(model, known, n=3, cutoff=0.4))
        raise BankError(
            f"torchgeo {torchgeo.__version__} has no model {model!r}{'; it has ' + near if near else ''}: newer models"
            " need a newer torchgeo (and Python 3.12)"
        )
    entry = _enum(weights)
    given = shaping(options)
    family = _family(model)
    plain = family is families.TimmFamily
    if plain:
        bands = channels if channels is not None else (entry.meta.get("in_chans", 3) if entry is not None else 3)
        given |= {"in_chans": bands, "num_classes": 0}
    elif channels is not None:
        raise BankError(
            f"channels={channels}: {model} takes bands as they are, leave encoder.backbone.channels at null"
        )
    if family is families.CromaFamily:
        given |= {"modalities": ["optical"]}
    given["image_size" if family is families.CromaFamily else "img_size"] = image_size
    vit = built(lambda: make(**given), seed, f"torchgeo's {model}")
    target = vit.model if family is families.PanopticonFamily else vit
    file = _fetched(entry) if entry is not None else None if weights == NONE else Path(weights).expanduser()
    normed = file is None or load_weights(target, file)
    takes = bands if plain else (12 if family is families.CromaFamily else None)
    return assembled(family, vit, model, weights, seed, image_size, takes, normed, options)


@ships({"small": SMALL / "model.safetensors"})
def small_vit(weights: str = "small", *, image_size: Side = 64, seed: Seed = 0) -> Backbone:
    """The shipped ViT (RGB, masked autoencoding); `random`: the same architecture untrained.

    `weights` can also be a file of that architecture, or a folder with a config.json of its own and model.safetensors.
    """
    import json

    own = Path(weights).expanduser()
    named = weights in ("small", "random")
    folder = own if not named and own.is_dir() else SMALL
    known = json.loads((folder / "config.json").read_text()) if (folder / "config.json").is_file() else {}
    if not {"model", "patch_size", "options"} <= known.keys():
        raise BankError(f"{folder} is no folder of tools/pretrain_vit.py: its config.json names no model of timm")
    file = NONE if weights == "random" else str(folder / "model.safetensors") if named or folder == own else weights
    return timm_vit(
        known["model"], file, image_size=image_size, patch_size=known["patch_size"], seed=seed, options=known["options"]
    )


def shaping(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of a model's shape; a file that the library would load by itself is none of them."""
    loads = sorted(LOADING.intersection(options or ()))
    if loads:
        raise BankError(f"encoder.backbone.options cannot have {loads[0]}: give the file as encoder.backbone.weights")
    return dict(options or {})


def built(make: Callable[[], nn.Module], seed: int, what: str) -> Any:
    """A model with random weights that depend on the seed alone, and one line if the arguments do not fit it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return make()
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise BankError(
                f"{what} cannot be built so: {' '.join(str(error).split())[:300] or type(error).__name__}"
            ) from error


def assembled(
    family: type[Backbone],
    vit: Any,
    name: str,
    weights: str,
    seed: int,
    image_size: int,
    channels: int | None,
    normed: bool,
    options: Mapping[str, Any] | None,
) -> Backbone:
    inner = vit.model if family is families.PanopticonFamily else vit
    try:
        width, patch, prefix = _shape(family, inner)
    except AttributeError as error:
        raise BankError(f"{name} is not a plain vision transformer ({error}): choose a vit_* model") from error
    if image_size % patch:
        raise BankError(f"an image of {image_size} px is not divisible into patches of {patch} px for {name}")
    known = f"from-scratch-seed{seed}" if weights == NONE else fingerprint(inner)
    token = prefix > 0 and getattr(inner, "cls_token", None) is not None
    given = tuple(sorted((options or {}).items()))
    return family(vit, Facts(name, known, width, patch, image_size, prefix, channels, token, normed, given))


def _shape(family: type[Backbone], inner: Any) -> tuple[int, int, int]:
    """Width, side of a patch, and tokens before the patches."""
    if family is families.CromaFamily:
        return inner.encoder_dim, inner.patch_size, 0
    embed = getattr(inner, "patch_embed", None) or inner.patch_embed_spectral
    patch = embed.patch_size[0] if isinstance(embed.patch_size, (tuple, list)) else embed.patch_size
    places = getattr(inner, "pos_embed", None)
    width = places.shape[-1] if places is not None else inner.embed_dim
    return int(width), int(patch), int(getattr(inner, "num_prefix_tokens", 1))


def _family(model: str) -> type[Backbone]:
    """By the name of a function or class of torchgeo."""
    starts = {
        "dofa": families.DofaFamily,
        "copernicusfm": families.CopernicusFamily,
        "panopticon": families.PanopticonFamily,
        "croma": families.CromaFamily,
        "scalemae": families.TimmFamily,
        "vit": families.TimmFamily,
    }
    for start, family in starts.items():
        if model.lower().startswith(start):
            return family
    raise BankError(f"torchgeo's {model} is not a ViT that is known here: known are names with {', '.join(starts)}")


def _enum(weights: str) -> Any:
    """torchgeo's weights of that name; None for `none` and for a file."""
    if not re.fullmatch(r"\w+_Weights\.\w+", weights):
        return None
    from torchgeo.models import get_weight

    try:
        return get_weight(weights)
    except (ValueError, KeyError, AttributeError) as error:
        import torchgeo.models

        kinds = [getattr(torchgeo.models, name) for name in dir(torchgeo.models) if name.endswith("_Weights")]
        near = difflib.get_close_matches(weights, [str(entry) for kind in kinds for entry in kind], n=3)
        raise BankError(
            f"torchgeo has no weights {weights!r}{'; it has ' + ', '.join(near) if near else ''}"
        ) from error


def _fetched(entry: Any) -> Path:
    """The file of torchgeo's weights in torch's cache, downloaded if need be, and whole."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rpartition("/")[2]
    expected = re.search(r"-([0-9a-f]{8,64})\.\w+$", file.name)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(entry.url, str(file), expected and expected.group(1), progress=True)
        except Exception as error:
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise BankError(
                f"{entry} cannot be downloaded ({reason}): fetch {entry.url} and put it at {file}"
            ) from error
    elif expected:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if not digest.startswith(expected.group(1)):
            raise BankError(
                f"{file} is damaged: its SHA-256 begins with {digest[:8]} not {expected.group(1)[:8]}: fetch it again"
            )
    return file


def _hub(make: Callable[[], nn.Module], model: str) -> Any:
    try:
        return make()
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BankError(
            f"timm's weights of {model} cannot be had ({reason}): fetch them elsewhere and give the file with"
            " encoder.backbone.weights=FILE"
        ) from error
