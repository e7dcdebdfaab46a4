"""What the text says: the embedding of one prompt for a whole data set, computed once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from satdifuser.diffusion.files import explained, quiet, read_config, require_all
from satdifuser.errors import UserError

DEFAULT = "A satellite image"


def embed_prompt(folder: Path, prompt: str) -> Tensor:
    """The last hidden state of the checkpoint's CLIP text model, `[1, tokens, width]` in float32.

    The text model is loaded, used once and let go.
    """
    from transformers import CLIPTextModel, CLIPTokenizer

    text, words = folder / "text_encoder", folder / "tokenizer"
    read_config(text / "config.json", None, "text encoder")
    if not any((words / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise UserError(f"no tokenizer at {words / 'vocab.json'}: was the download complete?")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a worker's fork
    with quiet("transformers"), explained(words):
        tokenizer = CLIPTokenizer.from_pretrained(words, local_files_only=True)
    with quiet("transformers"), explained(text):
        loaded: Any = CLIPTextModel.from_pretrained(
            text,
            local_files_only=True,
            output_loading_info=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
        )
    model, info = loaded
    require_all(info, text, ignore="position_ids")
    tokens = tokenizer(
        prompt,
        padding="max_length",
        max_length=min(tokenizer.model_max_length, model.config.max_position_embeddings),
        truncation=True,
        return_tensors="pt",
    )
    mask = tokens.attention_mask if getattr(model.config, "use_attention_mask", False) else None
    with torch.no_grad():
        return model.eval()(tokens.input_ids, attention_mask=mask).last_hidden_state.float()
