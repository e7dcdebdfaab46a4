"""Backbones through one door: diffusion models from a folder, with every weight matched, ready to be read."""

from __future__ import annotations

import copy
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from satdifuser.diffusion import architectures
from satdifuser.diffusion.files import explained, find_folder, find_unet, load_model, load_scheduler, quiet, read_config
from satdifuser.diffusion.prompts import DEFAULT, embed_prompt
from satdifuser.errors import UserError, nearest
from satdifuser.kinds import Seed
from satdifuser.shipped import ships

SHIPPED = {name: Path(__file__).parent / "weights" / name for name in ("small",)}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SOURCES = {
    "diffusionsat": "DiffusionSat's own repository (samar-khanna/DiffusionSat) links its checkpoints: unpack one and"
    " give its folder as encoder.backbone.weights",
    "stable_diffusion": "give a folder or a hub name in diffusers' layout as encoder.backbone.weights",
    "unconditional": "give a folder in diffusers' layout (unet/, scheduler/), or encoder.backbone.weights=small",
}
# of UNet, VAE and scheduler
SETTINGS = (
    *("attention_head_dim", "num_attention_heads", "norm_num_groups", "norm_eps", "act_fn", "flip_sin_to_cos"),
    *("freq_shift", "center_input_sample", "mid_block_scale_factor", "downsample_padding", "resnet_time_scale_shift"),
    *("time_embedding_type", "scaling_factor", "shift_factor", "prediction_type", "patch_size"),
)


@dataclass(frozen=True)
class Backbone:
    """A diffusion model as an encoder needs it, and what names its weights.

    `vae` is None for a model of pixels, `prompt` (`[1, tokens, width]`) for one without text; `num_metadata` is how
    many numbers of metadata the UNet reads. A `blueprint` is on the meta device: it has shapes but no weights. `folder`
    is where trained weights came from, which may know what inputs they are for.
    """

    unet: Any  # diffusers' models and schedulers carry no types
    scheduler: Any
    name: str
    fingerprint: str
    vae: Any = None
    prompt: Tensor | None = None
    text: str = ""
    num_metadata: int = 0
    blueprint: bool = False
    folder: Path | None = None


@ships({name: folder / WEIGHTS for name, folder in SHIPPED.items()})
def unconditional(
    weights: str = "small",
    *,
    architecture: str = "small",
    name: str | None = None,
    seed: Seed = 0,
    blueprint: bool = False,
) -> Backbone:
    """An unconditional `UNet2DModel` in diffusers' layout (`unet/`, `scheduler/`), of latents if it has a `vae/`.

    `weights` is a folder or a hub name; `small` means the weights that the package ships, and `random` the
    `architecture` of such weights with fresh ones drawn from `seed` (the control that every claim about pretraining
    needs).
    """
    from diffusers import AutoencoderKL

    from satdifuser.diffusion.patched import UNCONDITIONAL, unet_class

    if architecture not in SHIPPED:
        raise UserError(
            f"no architecture {architecture}: there is {', '.join(SHIPPED)}{nearest(architecture, SHIPPED)}"
        )
    own = SHIPPED[architecture] if weights == "random" else SHIPPED.get(weights)
    folder = own or find_folder(weights, "an unconditional diffusion model", SOURCES["unconditional"])
    config = read_config(folder / "unet" / "config.json", UNCONDITIONAL, "UNet")
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise UserError(f"{folder / 'unet'} is conditioned on classes: an unconditional UNet2DModel is expected")
    scheduler = load_scheduler(folder)
    unet = _build(unet_class(config), config, folder / "unet", weights == "random", seed, blueprint)
    vae = None
    if (folder / "vae").is_dir():
        vae_config = read_config(folder / "vae" / "config.json", ("AutoencoderKL",), "VAE")
        vae = _encoding(_build(AutoencoderKL, vae_config, folder / "vae", False, seed, blueprint))
    parts = (unet,) if vae is None else (unet, vae)
    return Backbone(
        unet=unet,
        scheduler=scheduler,
        name=name or (f"{weights}-diffusion" if own else _name(weights, folder)),
        fingerprint="" if blueprint else fingerprint(*parts, _settings(*parts, scheduler)),
        vae=vae,
        blueprint=blueprint,
        folder=None if weights == "random" else folder,
    )


def stable_diffusion(
    weights: str,
    *,
    prompt: str = DEFAULT,
    architecture: str = "sd21",
    name: str | None = None,
    seed: Seed = 0,
    blueprint: bool = False,
) -> Backbone:
    """Any text-to-image latent diffusion in the layout of Stable Diffusion 1.5 and 2.1.

    `weights` is a folder or a hub name, or `random` for an `architecture` (sd15, sd21, diffusionsat, tiny) with fresh
    weights and a fresh embedding in the prompt's place.
    """
    from diffusers import UNet2DConditionModel

    return _latent(UNet2DConditionModel, "stable_diffusion", weights, prompt, architecture, name, seed, blueprint)


def diffusionsat(
    weights: str,
    *,
    prompt: str = DEFAULT,
    architecture: str = "diffusionsat",
    name: str | None = None,
    seed: Seed = 0,
    blueprint: bool = False,
) -> Backbone:
    """DiffusionSat: its published layout (`checkpoint-<steps>/unet`) or diffusers' own, with metadata or without."""
    from satdifuser.diffusion.satunet import SatUNet

    return _latent(SatUNet, "diffusionsat", weights, prompt, architecture, name, seed, blueprint)


def _latent(
    cls: Any, kind: str, weights: str, prompt: str, architecture: str, name: str | None, seed: int, blueprint: bool
) -> Backbone:
    from diffusers import AutoencoderKL, DDPMScheduler

    random, satellite = weights == "random", kind == "diffusionsat"
    here = random or Path(weights).expanduser().is_dir()
    if random or (blueprint and not here):
        folder = Path(weights)
        config, vae_config = architectures.unet_config(architecture), architectures.vae_config(architecture)
        scheduler = DDPMScheduler.from_config(architectures.SCHEDULE)
    else:
        folder = find_folder(weights, f"a {kind} checkpoint", SOURCES[kind])
        classes = ("UNet2DConditionModel", "SatUNet") if satellite else ("UNet2DConditionModel",)
        config = read_config(find_unet(folder, satellite) / "config.json", classes, "UNet")
        vae_config = read_config(folder / "vae" / "config.json", ("AutoencoderKL",), "VAE")
        scheduler = load_scheduler(folder)
    if satellite and config["_class_name"] != "SatUNet" and "num_metadata" not in config:
        config = {**config, "use_metadata": False, "num_metadata": 0}
    _refuse_other_conditions(config, folder)
    unet = _build(cls, config, find_unet(folder, satellite), random, seed, blueprint)
    vae = _encoding(_build(AutoencoderKL, vae_config, folder / "vae", random, seed, blueprint))
    width = unet.config["cross_attention_dim"]
    if random or blueprint:
        text = torch.randn(1, architectures.TOKENS, width, generator=torch.Generator().manual_seed(seed))
    else:
        text = embed_prompt(folder, prompt)
    if text.shape[-1] != width:
        raise UserError(
            f"the text encoder in {folder} gives {text.shape[-1]} numbers a token, but its UNet reads {width}: they are"
            " not of one model"
        )
    return Backbone(
        unet=unet,
        scheduler=scheduler,
        name=name or (f"random-{architecture}" if random else _name(weights, folder)),
        fingerprint="" if blueprint else fingerprint(unet, vae, text, _settings(unet, vae, scheduler)),
        vae=vae,
        prompt=text,
        text=prompt,
        num_metadata=len(getattr(unet, "metadata_embedding", ())),
        blueprint=blueprint,
    )


def _build(cls: Any, config: dict[str, Any], folder: Path, random: bool, seed: int, blueprint: bool) -> Any:
    """The model of a configuration: its shapes only, with random weights, or with those of its folder."""
    if blueprint or random:
        device = torch.device("meta" if blueprint else "cpu")
        with explained(folder / "config.json"), torch.random.fork_rng(devices=[]), device:
            torch.manual_seed(seed)
            return cls.from_config(config).eval()
    override = {key: config[key] for key in ("use_metadata", "num_metadata") if key in config}
    return load_model(cls, folder, torch_dtype=torch.float32, **override)


def _encoding(vae: Any) -> Any:
    """The VAE without its decoder: a third of its weights, and never used."""
    vae.decoder, vae.post_quant_conv = None, None
    return vae


def _name(weights: str, folder: Path) -> str:
    """The last word of a path or of a hub name (whose folder in the cache is named by its revision)."""
    return folder.resolve().name if Path(weights).expanduser().is_dir() else weights.rpartition("/")[2]


def blueprint_of(model: Any) -> Any:
    """The same network on the meta device: it computes shapes, at no cost."""
    with torch.device("meta"):
        return type(model).from_config(model.config).eval().requires_grad_(False)


def cast(model: Any, dtype: torch.dtype) -> Any:
    """The model in a precision: itself if it has that already, else a copy, for others may use the backbone too."""
    if all(parameter.dtype == dtype for parameter in model.parameters()):
        return model
    with quiet():
        return copy.deepcopy(model).to(dtype=dtype)


def fingerprint(*parts: nn.Module | Tensor) -> str:
    """A short name for the exact weights: a hash of every tensor's name and bytes.

    >>> fingerprint(nn.Linear(2, 1)) == fingerprint(nn.Linear(2, 1))
    False
    """
    tensors: list[tuple[str, Tensor]] = []
    for number, part in enumerate(parts):
        named = part.state_dict().items() if isinstance(part, nn.Module) else [("", part)]
        tensors += [(f"{number}.{name}", tensor) for name, tensor in sorted(named)]

    def digest(item: tuple[str, Tensor]) -> bytes:
        name, tensor = item
        plain = tensor.detach().cpu().contiguous().view(-1)
        kind = hashlib.sha256(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        kind.update(plain.view(torch.uint8).numpy().data)
        return kind.digest()

    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter's lock
        return hashlib.sha256(b"".join(pool.map(digest, tensors))).hexdigest()[:16]


def _settings(*parts: Any) -> Tensor:
    """What of the configurations changes features, but neither names nor shapes of the weights."""
    known = [{key: part.config[key] for key in SETTINGS if part.config.get(key) is not None} for part in parts]
    levels = [float(a) for a in parts[-1].alphas_cumprod]
    words = json.dumps([known, levels], sort_keys=True, default=list).encode()
    return torch.tensor(list(words), dtype=torch.uint8)


def _refuse_other_conditions(config: dict[str, Any], folder: Path) -> None:
    for key in ("class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim_type"):
        if config.get(key):
            raise UserError(
                f"the UNet in {folder} has {key}={config[key]!r}: it is conditioned on more than a timestep and a"
                " prompt (Stable Diffusion 1.5 and 2.1 and their kin are supported)"
            )
