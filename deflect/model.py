"""`deflect.adapt(model, config)`: DEFLECT on a pretrained ViT, in the manner of peft."""

from __future__ import annotations

import copy
import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Len
from torch import Tensor, nn

from deflect.bands import Band, as_bands
from deflect.blocks import Streams, prefix_tokens, sites
from deflect.deflection import Deflection, Norm
from deflect.embedding import UntangledPatchEmbedding
from deflect.indices import SpectralIndices
from satdifuser.bank import BankError
from satdifuser.kinds import Count, Positive, Whole, check_fields

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


Limits = Annotated[Sequence[float], Len(2, 2)]  # the least and the greatest


@dataclass(frozen=True)
class DeflectConfig:
    """How a ViT is adapted. `bands` are those of the `spectra` that the adapted model is given, in their order.

    `indices`: names of spyndex, or None for the default set as far as the bands allow it. `blocks`: numbers of the
    adapted blocks, or None for all. `patch_size`: of the model, or None to ask it. `modules_to_save`: the names of
    modules that train beside the adapter and are saved with it, such as a classifier (`["head"]`); as in peft, a name
    means every module of that name.
    """

    bands: tuple[Band, ...]
    indices: Sequence[str] | None = None
    index_limits: Limits = (-2.0, 2.0)
    rank: Count = 4
    hidden: Count = 32
    norm: Norm = "preserve"
    epsilon: Positive = 0.1
    mlp_on_auxiliary: bool = False
    blocks: Sequence[Whole] | None = None
    patch_size: Count | None = None
    modules_to_save: Sequence[str] | None = None
    peft_type: str = field(default="DEFLECT", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", as_bands(self.bands))
        check_fields(self, "encoder.adapter")
        for name in ("indices", "index_limits", "blocks", "modules_to_save"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DeflectConfig:
        kind = values.get("peft_type") if isinstance(values, Mapping) else type(values).__name__
        if kind != "DEFLECT":
            raise BankError(f"this is the configuration of {kind!r}, not of a DEFLECT adapter")
        known = {item.name for item in fields(cls) if item.init}
        unknown = sorted(values.keys() - known - {"peft_type"})
        if unknown:
            raise BankError(f"a DEFLECT configuration has no {', '.join(unknown)}: it was written by another version")
        chosen = {name: value for name, value in values.items() if name in known}
        return cls(**{**chosen, "bands": tuple(Band(**band) for band in chosen["bands"])})


class DeflectModel(nn.Module):
    """A frozen ViT with DEFLECT's two streams. Everything it does not have itself it asks the model for.

    `forward(images, spectra=reflectance)` calls the model with `images` (RGB as it was pretrained on) and gives what
    the model gives. A method of the model (`forward_features`, ...) is called inside `with adapted.given(spectra)`.
    """

    def __init__(self, model: nn.Module, config: DeflectConfig) -> None:
        super().__init__()
        if any(isinstance(module, Deflection) for module in model.modules()):
            raise BankError("the model is adapted with DEFLECT already: call remove() first")
        found = sites(model)
        _named(model, config.modules_to_save or ())  # an error leaves the model as it was
        chosen = range(len(found)) if config.blocks is None else config.blocks
        wrong = [number for number in chosen if not 0 <= number < len(found)]
        if wrong or len(set(chosen)) != len(chosen) or not chosen:
            raise BankError(f"blocks {list(chosen)}: give distinct numbers from 0 to {len(found) - 1}")
        self.config = config
        patch = config.patch_size if config.patch_size is not None else _patch_size(model)
        indices = SpectralIndices(config.bands, config.indices, (config.index_limits[0], config.index_limits[1]))
        width = found[0].width
        upe = UntangledPatchEmbedding(indices, len(config.bands), config.hidden, width, patch)
        like = next(model.parameters())
        adapters = [Deflection(width, config.rank, config.norm, config.epsilon).to(like) for _ in chosen]
        self._trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        self._replaced: dict[str, nn.Module] = {}
        self._streams = Streams(prefix_tokens(model))
        model.requires_grad_(False)
        self._saved: list[nn.Module] = []
        for name in _named(model, config.modules_to_save or ()):
            self._replaced[name] = model.get_submodule(name)
            self._saved.append(copy.deepcopy(self._replaced[name]).requires_grad_(True))
            model.set_submodule(name, self._saved[-1])
        for number, deflection in zip(sorted(chosen), adapters, strict=True):
            mlp = config.mlp_on_auxiliary and number < max(chosen)  # after the last of them nobody reads it
            for name, module in found[number].wrap(self._streams, deflection, mlp).items():
                self._replaced[name] = model.get_submodule(name)
                model.set_submodule(name, module)
        self.upe = upe.to(like)
        self.base_model = model

    def forward(self, images: Any, *args: Any, spectra: Tensor, **kwargs: Any) -> Any:
        if isinstance(images, Tensor) and images.shape[-2:] != spectra.shape[-2:]:
            sizes = " and ".join(f"{x.shape[-2]} x {x.shape[-1]}" for x in (images, spectra))
            raise BankError(f"images and spectra are {sizes} px: give both at the same size")
        with self.given(spectra):
            return self.base_model(images, *args, **kwargs)

    @contextmanager
    def given(self, spectra: Tensor) -> Iterator[None]:
        """The spectra (reflectance, all bands of the configuration) of the images that the model sees meanwhile."""
        # The model's own checkpointing would compute a block again without its second stream: the blocks do it here.
        holders = [m for m in self.base_model.modules() if getattr(m, "grad_checkpointing", False) is True]
        for holder in holders:
            holder.grad_checkpointing = False  # type: ignore[assignment]
        try:
            with self._streams.given(self.upe(spectra), checkpointing=bool(holders)):
                yield
        finally:
            for holder in holders:
                holder.grad_checkpointing = True  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_model":
                raise
            return getattr(self.base_model, name)

    def get_base_model(self) -> nn.Module:
        """The model itself, whose blocks are wrapped."""
        return self.base_model

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """What DEFLECT adds to the model, by name, and the parameters of `modules_to_save`."""
        saved = {id(p) for module in self._saved for p in module.parameters()}
        named = self.named_parameters()
        return {n: p for n, p in named if n.startswith("upe.") or ".deflection." in n or id(p) in saved}

    def _adapter_state(self) -> dict[str, Tensor]:
        """What is saved: the adapter's parameters, and what `modules_to_save` have of buffers."""
        saved = {id(b) for module in self._saved for b in module.buffers()}
        return {**self.adapter_parameters(), **{name: b for name, b in self.named_buffers() if id(b) in saved}}

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Parameters that train, and all of them."""
        return parameter_counts(self)

    def print_trainable_parameters(self) -> None:
        trainable, total = self.get_nb_trainable_parameters()
        print(f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {100 * trainable / total:.4f}")
        for name, count in self.what_trains().items():
            print(f"  {name}: {count:,}")

    def what_trains(self) -> dict[str, int]:
        """The modules that train and how many parameters each has; those of one name in many blocks are one line."""
        found: dict[str, list[int]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                module = name.removeprefix("base_model.").replace(".base_layer.", ".").rpartition(".")[0]
                for part in (".deflection", "upe"):
                    module = module.partition(part)[0] + part if part in f".{module}" else module
                found.setdefault(re.sub(r"\.\d+(?=\.|$)", ".*", module), []).append(parameter.numel())
        return {name: sum(counts) for name, counts in found.items()}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """The adapter alone: its configuration and its weights, each written aside and renamed."""
        from safetensors.torch import save

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in self._adapter_state().items()}
        written = {WEIGHTS: save(weights), CONFIG: (json.dumps(self.config.to_dict(), indent=2) + "\n").encode()}
        for name, data in written.items():
            aside = path / f".{name}.{os.getpid()}"
            try:
                aside.write_bytes(data)
                aside.replace(path / name)
            finally:
                aside.unlink(missing_ok=True)
        return path

    @classmethod
    def from_pretrained(cls, model: nn.Module, folder: str | os.PathLike[str]) -> DeflectModel:
        """The model with a saved adapter; every weight must match."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (path / name).is_file():
                raise BankError(f"no {name} in {path.absolute()}: give the folder that save_pretrained wrote")
        try:
            config = DeflectConfig.from_dict(json.loads((path / CONFIG).read_text()))
            weights = load_file(path / WEIGHTS)
        except (ValueError, TypeError, KeyError, SafetensorError) as error:
            if isinstance(error, BankError):
                raise
            raise BankError(f"the adapter in {path.absolute()} is damaged ({error}): save it again") from error
        adapted = cls(model, config)
        own = adapted._adapter_state()
        wrong = sorted(own.keys() ^ weights.keys())
        wrong += [name for name in sorted(own.keys() & weights.keys()) if own[name].shape != weights[name].shape]
        if wrong:
            adapted.remove()
            raise BankError(
                f"the adapter in {path.absolute()} is of another model: {len(wrong)} weights differ, {wrong[0]} first"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(weights[name])
        return adapted

    def remove(self) -> nn.Module:
        """The model as it was, to the bit: its blocks, its names, and which of its parameters train.

        What `modules_to_save` have learned is not in it: save it first.
        """
        model = self.base_model
        for name, module in reversed(self._replaced.items()):
            model.set_submodule(name, module)
        self._replaced = {}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self._trained.get(name, parameter.requires_grad))
        return model


def adapt(model: nn.Module, config: DeflectConfig) -> DeflectModel:
    """DEFLECT on a ViT of timm or torchgeo, in place: the model's weights are frozen and its blocks wrapped.

    All of the model is frozen, and its classifier too, unless `config.modules_to_save` names it (`["head"]` of timm's
    ViTs). `print_trainable_parameters()` says what trains.
    """
    return DeflectModel(model, config)


def _named(model: nn.Module, wanted: Sequence[str]) -> list[str]:
    """The modules of these names, wherever they are; those inside one of them are not named again."""
    there = [name for name, _ in model.named_modules() if name]
    found: list[str] = []
    for word in wanted:
        names = [name for name in there if name == word or name.endswith(f".{word}")]
        if not names:
            close = difflib.get_close_matches(
                word, sorted({n.rpartition(".")[2] for n in there} - {""}), n=3, cutoff=0.5
            )
            near = f"; did you mean {' or '.join(close)}?" if close else ""
            raise BankError(f"modules_to_save: {type(model).__name__} has no module {word!r}{near}")
        if not any(list(model.get_submodule(name).parameters()) for name in names):
            raise BankError(
                f"modules_to_save: {names[0]} of {type(model).__name__} has no parameters that could train: put a layer"
                " there first (of timm's ViTs: reset_classifier(classes))"
            )
        found += [name for name in names if name not in found]
    return [name for name in found if not any(name.startswith(f"{other}.") for other in found)]


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Parameters that train, and all of them."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def _patch_size(model: nn.Module) -> int:
    """The side of a patch, from the module that embeds them."""
    for _, module in model.named_modules():
        for holder in (getattr(module, "patch_embed", None), module):
            size = getattr(holder, "patch_size", None)
            if size is not None:
                return int(size[0] if isinstance(size, (tuple, list)) else size)
    raise BankError(f"{type(model).__name__} does not say its patch size: set patch_size")
