"""A tiny UNet in diffusers' layout, written by diffusers itself."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import DDPMScheduler, UNet2DModel

    folder = tmp_path_factory.mktemp("backbones") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        unet = UNet2DModel(
            sample_size=16,
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            attention_head_dim=8,
            dropout=0.3,  # off in a frozen encoder
        )
    unet.save_pretrained(folder / "unet")
    DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear").save_pretrained(folder / "scheduler")
    return folder


WORDS = ["a", "satellite", "image", "of", "the", "sea", "!"]
SATELLITE_UNET = {
    "sample_size": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
}


def write_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer of a few words, in the files that CLIPTokenizer saves."""
    import json

    letters = sorted({letter for word in WORDS for letter in word})
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.append("".join(pair))
            pieces = ["".join(pair), *pieces[2:]]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = list(dict.fromkeys(vocabulary))
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings = {**special, "pad_token": "!", "model_max_length": 9, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps({**special, "pad_token": "!"}))


def write_checkpoint(folder: Path, unet: dict | None = None, *, satellite: bool = False, prediction: str = "epsilon"):
    """A tiny text-to-image latent diffusion model in diffusers' layout, every part written by its own library.

    With `satellite` it is DiffusionSat's published layout: the UNet (class SatUNet) in `checkpoint-150000/unet`.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from satdifuser.diffusion.satunet import SatUNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        write_tokenizer(folder / "tokenizer")
        config = CLIPTextConfig(
            vocab_size=200,
            hidden_size=12,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=9,
        )
        CLIPTextModel(config).save_pretrained(folder / "text_encoder")
        vae = AutoencoderKL(
            block_out_channels=(4, 4, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=2,
        )
        vae.save_pretrained(folder / "vae")
        kind = SatUNet if satellite else UNet2DConditionModel
        where = folder / "checkpoint-150000" / "unet" if satellite else folder / "unet"
        kind(**{**SATELLITE_UNET, **(unet or {})}).save_pretrained(where)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    DDIMScheduler(**schedule, prediction_type=prediction, set_alpha_to_one=False).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="session")
def checkpoint_writer():
    """Write a tiny latent checkpoint: `checkpoint_writer(folder, satellite=True)`."""
    return write_checkpoint


@pytest.fixture(scope="session")
def latent_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("latent") / "sd")


@pytest.fixture(scope="session")
def satellite_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("satellite") / "diffusionsat", satellite=True)


@pytest.fixture
def latent_copy(latent_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(latent_folder, tmp_path / "latent"))


@pytest.fixture
def satellite_copy(satellite_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(satellite_folder, tmp_path / "satellite"))


class CheckpointFiles:
    """What tests do to the files of a checkpoint."""

    config = SATELLITE_UNET

    @staticmethod
    def edit(path: Path, **keys) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))

    @staticmethod
    def change(path: Path, spoil) -> dict[str, torch.Tensor]:
        state = load_file(path)
        spoil(state)
        save_file(state, path, {"format": "pt"})
        return state

    @classmethod
    def randomise(cls, path: Path) -> dict[str, torch.Tensor]:
        return cls.change(path, lambda state: state.update({k: torch.randn_like(v) for k, v in state.items()}))

    @staticmethod
    def pickle(path: Path, **more) -> Path:
        """The same weights in the older format."""
        other = path.with_name("pytorch_model.bin") if path.name == "model.safetensors" else path.with_suffix(".bin")
        torch.save({**load_file(path), **more}, other)
        path.unlink()
        return other

    @staticmethod
    def shard(unet: Path) -> list[Path]:
        from diffusers import UNet2DConditionModel

        model = UNet2DConditionModel.from_pretrained(unet)
        (unet / "diffusion_pytorch_model.safetensors").unlink()
        model.save_pretrained(unet, max_shard_size="20KB")
        return sorted(unet.glob("*.safetensors"))

    @staticmethod
    def older_attention(state: dict[str, torch.Tensor]) -> None:
        """The names that a VAE's attention had."""
        names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for name in [name for name in state if "mid_block.attentions.0.to_" in name]:
            where, new, kind = re.split(r"(to_[qkv]|to_out\.0)", name)
            state[where + names[new] + kind] = state.pop(name)

    @staticmethod
    def older_text(state: dict[str, torch.Tensor]) -> None:
        """The names that a text model's weights had, and a buffer that lay among them."""
        for name in list(state):
            state["text_model." + name.removeprefix("text_model.")] = state.pop(name)
        state["text_model.embeddings.position_ids"] = torch.arange(9)[None]


@pytest.fixture(scope="session")
def files() -> type[CheckpointFiles]:
    return CheckpointFiles
