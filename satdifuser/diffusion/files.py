"""Checkpoint folders in diffusers' layout: where their parts are, read strictly, and one clear line if one is not."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from satdifuser.errors import UserError

UNREACHED = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError", "TimeoutException"}


def find_folder(weights: str, wanted: str, source: str) -> Path:
    """The checkpoint folder: a local path, or a repository of the Hugging Face hub, downloaded once into its cache.

    `wanted` says what is looked for, `source` where it can be had.
    """
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return folder
    if re.fullmatch(r"[\w.-]+/[\w.-]+", weights) and not weights.startswith((".", "/")):
        return _download(weights, wanted, source)
    raise UserError(f"no folder {folder.absolute()}: {wanted} is looked for there; {source}")


def find_unet(folder: Path, published: bool = False) -> Path:
    """The folder of the UNet: `unet/`, or DiffusionSat's `checkpoint-<steps>/unet` (the one with the most steps)."""
    found = sorted(folder.glob("checkpoint-*/unet"), key=lambda path: (_number(path.parent.name), path))
    if found and (published or not (folder / "unet").is_dir()):
        return found[-1]
    return folder / "unet"


def read_config(path: Path, expected: tuple[str, ...] | None, part: str) -> dict[str, Any]:
    """A JSON configuration, of one of the expected classes."""
    if not path.is_file():
        _refuse_transformer(path.parent.parent)
        raise UserError(f"no {path.name} at {path}: a folder in diffusers' layout is expected, with its {part} there")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): fetch the file again") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no configuration, but a {type(config).__name__}: fetch the file again")
    if expected and config.get("_class_name") not in expected:
        raise UserError(
            f"{path} describes a {config.get('_class_name')}, but a {' or '.join(expected)} is expected here"
        )
    return config


def _refuse_transformer(folder: Path) -> None:
    """Say of a diffusion transformer (DiT, PixArt, SD3, Flux) that it is one: the encoders here read UNets."""
    for own in (folder / "transformer" / "config.json", folder / "config.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            name = str(json.loads(own.read_text()).get("_class_name"))
            if "Transformer" in name:
                raise UserError(
                    f"{own.parent} is a diffusion transformer ({name}), and this encoder reads a UNet: give a model"
                    " that has a folder unet/, as those of Stable Diffusion 1.5 and 2.1 have"
                )


def load_scheduler(folder: Path) -> Any:
    """The noise schedule that the weights were trained on, whatever sampler the folder names."""
    from diffusers import DDPMScheduler

    path = folder / "scheduler" / "scheduler_config.json"
    config = read_config(path, None, "scheduler")
    if "beta_schedule" not in config and "trained_betas" not in config:
        raise UserError(
            f"{path} describes a {config.get('_class_name')} without a schedule of betas: only diffusion in epsilon, v"
            " or sample prediction is supported, not flow matching"
        )
    with quiet():
        return DDPMScheduler.from_config(config)


def load_model(cls: type, folder: Path, **options: Any) -> Any:
    """A diffusers model from its folder, with every weight matched; safetensors first, `.bin` as weights only."""
    file = _weights_file(folder)
    with quiet(), explained(file):
        model, info = cls.from_pretrained(  # type: ignore[attr-defined]
            folder, output_loading_info=True, local_files_only=True, ignore_mismatched_sizes=True, **options
        )
    require_all(info, file)
    return model.eval()


def require_all(info: Mapping[str, Any], file: Path, ignore: str = "") -> None:
    """Refuse weights of which some did not match; `ignore` ends the names of buffers that old files carry along."""
    wrong = [f"{key} is missing" for key in sorted(info["missing_keys"])]
    wrong += [f"{key} is unknown" for key in sorted(info["unexpected_keys"]) if not (ignore and key.endswith(ignore))]
    wrong += [f"{key} is {tuple(found)} instead of {tuple(own)}" for key, found, own in sorted(info["mismatched_keys"])]
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise UserError(f"{file} does not match its config.json ({len(wrong)} weights): {shown}")


@contextlib.contextmanager
def explained(file: Path) -> Iterator[None]:
    """Whatever the libraries raise while they read a file, as one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:300] or type(error).__name__
        if "weights_only" in reason or "Weights only" in reason:
            reason = "it holds more than tensors, and what a pickle says is not run"
        raise UserError(f"{file} is damaged or incomplete ({reason}): fetch it again") from error


@contextlib.contextmanager
def quiet(library: str = "diffusers") -> Iterator[None]:
    """Keep a library's own bars and remarks about a checkpoint out of the user's terminal: ours say what is wrong."""
    logging = importlib.import_module(f"{library}.utils.logging")  # diffusers' and transformers' are alike
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _weights_file(folder: Path) -> Path:
    """The file that diffusers will read, or one line if there is none."""
    name = "diffusion_pytorch_model"
    for kind in (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json"):
        if (folder / (name + kind)).is_file():
            return folder / (name + kind)
    raise UserError(f"no weights at {folder / name}.safetensors (nor .bin): was the download complete?")


def _number(name: str) -> int:
    digits = name.rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1


def _download(repository: str, wanted: str, source: str) -> Path:
    """The parts of a checkpoint that are used, and of two formats the safer one."""
    from huggingface_hub import snapshot_download

    models = ("unet", "checkpoint-*/unet", "vae", "text_encoder")
    parts = [
        "model_index.json",
        "transformer/config.json",
        *(f"{part}/*" for part in (*models, "tokenizer", "scheduler")),
    ]
    others = ["*.fp16.*", "*.non_ema.*", "*.msgpack", "*.onnx", "*.ckpt"]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=parts, ignore_patterns=[*others, "*.bin"]))
        found = [path for model in models for path in folder.glob(model)]
        if not all(any(path.glob("*.safetensors")) for path in found):
            folder = Path(snapshot_download(repository, allow_patterns=parts, ignore_patterns=others))
    except Exception as error:
        raise UserError(f"no folder {repository} here, and {_why(error, repository, wanted)}; {source}") from error
    return folder


def _why(error: BaseException, repository: str, wanted: str) -> str:
    """Why a repository of the hub was not to be had, and what to do about it, as a sentence."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "ConnectionError",
        "ConnectError",
        "TimeoutException",
    }:
        return (
            f"the Hugging Face hub cannot be reached from this machine to fetch {wanted}: on one with a network, run"
            f" hf download {repository} --local-dir FOLDER, and give that folder"
        )
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{wanted} cannot be had from the hub under that name ({reason})"
