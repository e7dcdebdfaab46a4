"""Which taps: by name, by block, module and index, or by the name of a preset; and the list of all there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from satdifuser.bank import Tap
from satdifuser.diffusion.loading import Backbone, blueprint_of
from satdifuser.diffusion.taps import count_calls, tap_of, trace
from satdifuser.errors import UserError, nearest

# kind of module -> how its name ends
KINDS = {
    "conv1": r"resnets\.\d+\.conv1",
    "conv2": r"resnets\.\d+\.conv2",
    "resnet": r"resnets\.\d+",
    "attn1": r"transformer_blocks\.\d+\.attn1",
    "attn2": r"transformer_blocks\.\d+\.attn2",
    "ff": r"transformer_blocks\.\d+\.ff",
    "norm1": r"(?:resnets|transformer_blocks)\.\d+\.norm1",
    "norm2": r"(?:resnets|transformer_blocks)\.\d+\.norm2",
    "norm3": r"transformer_blocks\.\d+\.norm3",
    "attention": r"attentions\.\d+",
    "sampler": r"(?:down|up)samplers\.\d+",
    "block": r"(?:(?:down|up)_blocks\.\d+|mid_block)",
}
BLOCKS = {"down": "down_blocks.", "mid": "mid_block", "up": "up_blocks."}
# SatDiFuser's selection: in the up path every convolution that ends a ResNet block, and every self-attention
PRESETS: dict[str, list[Any]] = {"satdifuser": [{"block": "up", "module": ["conv2", "attn1|attention"]}]}

Wanted = str | Sequence[str | Mapping[str, Any]]


def choose_taps(backbone: Backbone, wanted: Wanted, image_size: int) -> tuple[Tap, ...]:
    """The taps that a configuration asks for, in the order of computation, without timesteps.

    `wanted` is a preset, or a list of module names (`mid_block`, `up_blocks.1.resnets.0.conv2`) and of selections
    (`{block: up, module: [conv2, attn1], index: [0, 2]}`; index counts in the order of computation).
    """
    if isinstance(wanted, str):
        if wanted not in PRESETS:
            raise UserError(
                f"no preset of taps {wanted!r}: there is {', '.join(PRESETS)}, or give a list of taps"
                f"{nearest(wanted, PRESETS)}"
            )
        wanted = PRESETS[wanted]
    if not isinstance(wanted, Sequence) or not wanted:
        found = "empty" if wanted == [] else wanted
        raise UserError(f"encoder.taps is {found}: give a list with at least one module, or the preset satdifuser")
    check_size(backbone, image_size)
    network = blueprint_of(backbone.unet)
    call = dry_call(backbone, network, image_size)
    names: list[str] = []
    all_taps: list[Tap] | None = None
    for item in wanted:
        if isinstance(item, str):
            if wanted.count(item) > 1:
                raise UserError(f"tap {item!r} is asked for twice")
            names += [item] if item not in names else []
            continue
        if not isinstance(item, Mapping):
            raise UserError(f"encoder.taps has {item!r}: give names, and selections of block, module and index")
        all_taps = all_taps if all_taps is not None else _taps_of(network, call, image_size)
        names += [name for name in _select(item, all_taps) if name not in names]
    return trace(network, names, call, image_size)


def list_taps(backbone: Backbone, image_size: int, every: bool = False) -> list[Tap]:
    """Every tap that there is, in the order of computation: of the known kinds, or any module that gives a map."""
    check_size(backbone, image_size)
    network = blueprint_of(backbone.unet)
    return _taps_of(network, dry_call(backbone, network, image_size), image_size, every)


def taps_until(backbone: Backbone, image_size: int, last: str) -> list[Tap]:
    """Every tap of the known kinds that is computed by the time that the module `last` is."""
    network = blueprint_of(backbone.unet)
    names = [name for name, _ in network.named_modules() if name and (kind_of(name) or name == last)]
    order = list(count_calls(network, names, dry_call(backbone, network, image_size)))
    by_then = set(order[: order.index(last) + 1])
    return [tap for tap in list_taps(backbone, image_size) if tap.name in by_then]


def _taps_of(network: Any, call: Callable[[], Any], image_size: int, every: bool = False) -> list[Tap]:
    names = [name for name, _ in network.named_modules() if name and (every or kind_of(name))]
    calls = count_calls(network, names, call)
    found = [tap_of(network, name, depth, value, image_size) for depth, (name, (_, value)) in enumerate(calls.items())]
    once = {name for name, (times, _) in calls.items() if times == 1}
    return [tap for tap in found if tap is not None and tap.name in once]


def kind_of(name: str) -> str:
    """
    >>> kind_of("up_blocks.1.resnets.0.conv2"), kind_of("mid_block"), kind_of("conv_in"), kind_of("time_embedding")
    ('conv2', 'block', 'conv_in', '')
    """
    if name in ("conv_in", "conv_out"):
        return name
    return next((kind for kind, ending in KINDS.items() if re.search(rf"(?:^|\.){ending}$", name)), "")


def dry_call(backbone: Backbone, network: Any, image_size: int) -> Callable[[], Any]:
    """A pass through the network's shapes."""
    side = image_size if backbone.vae is None else image_size // latent_factor(backbone.vae)
    options: dict[str, Any] = {}
    if backbone.prompt is not None:
        options["encoder_hidden_states"] = torch.zeros(1, *backbone.prompt.shape[1:], device="meta")
    noisy = torch.zeros(1, network.config["in_channels"], side, side, device="meta")
    return lambda: network(noisy, torch.zeros(1, device="meta"), **options)


def check_size(backbone: Backbone, image_size: int) -> None:
    """An image must divide by the largest stride."""
    config = backbone.unet.config
    factor = 2 ** (len(config["block_out_channels"]) - 1) * config.get("patch_size", 1)
    factor *= 1 if backbone.vae is None else latent_factor(backbone.vae)
    if image_size < factor or image_size % factor:
        raise UserError(
            f"encoder.image_size is {image_size}: the largest stride of {backbone.name} is {factor}, so use a multiple"
            " of it (encoder.prepare.size resizes the images)"
        )


def latent_factor(vae: Any) -> int:
    """Pixels to a side of a latent."""
    return int(2 ** (len(vae.config["block_out_channels"]) - 1))


def _select(item: Mapping[str, Any], there: Sequence[Tap]) -> list[str]:
    unknown = set(item) - {"block", "module", "index"}
    if unknown or "module" not in item:
        raise UserError(f"the selection of taps {dict(item)} is not understood: it has block, module and index")
    blocks = _words(item, "block") if item.get("block") is not None else []
    modules = _words(item, "module")
    single = [kind for module in modules for kind in module.split("|")]
    for what, word, known in (
        *(("module", kind, [*KINDS, "conv_in", "conv_out"]) for kind in single),
        *(("block", block, _blocks(there)) for block in blocks),
    ):
        if word not in known:
            raise UserError(f"taps: no {what} {word!r}: there is {', '.join(known)}{nearest(word, known)}")
    names = [tap.name for tap in there if not blocks or any(_inside(tap.name, block) for block in blocks)]
    found: list[str] = []
    for module in modules:  # a|b: b where there is no a
        kinds = {kind: [name for name in names if kind_of(name) == kind] for kind in module.split("|")}
        found += next((matches for matches in kinds.values() if matches), [])
    found = [name for name in names if name in found]
    if not found:
        raise UserError(f"the selection of taps {dict(item)} matches nothing: satdifuser taps lists what there is")
    if item.get("index") is None:
        return found
    indices = _listed(item["index"])
    if any(not isinstance(index, int) or isinstance(index, bool) for index in indices):
        raise UserError(f"taps: the index of {dict(item)} must be whole numbers")
    outside = [index for index in indices if not -len(found) <= index < len(found)]
    if outside:
        raise UserError(f"taps: index {outside[0]} of {dict(item)} is outside: it matches {len(found)} modules")
    chosen = [found[index] for index in indices]
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"tap {twice!r} is asked for twice: by the indices of {dict(item)}")
    return chosen


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _words(item: Mapping[str, Any], key: str) -> list[str]:
    words = _listed(item[key])
    if any(not isinstance(word, str) for word in words):
        raise UserError(f"taps: the {key} of {dict(item)} must be a word, or a list of words")
    return words


def _blocks(there: Sequence[Tap]) -> list[str]:
    exact = [match.group() for tap in there if (match := re.match(r"(?:down|up)_blocks\.\d+", tap.name))]
    return [*BLOCKS, *dict.fromkeys(exact)]


def _inside(name: str, block: str) -> bool:
    if block in BLOCKS:
        return name.startswith(BLOCKS[block])
    return name == block or name.startswith(block + ".")
