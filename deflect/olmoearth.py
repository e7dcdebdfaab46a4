"""OlmoEarth (Ai2, 2025) as a feature-bank encoder, by its own small package, which is asked for when it is used."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deflect.backbones.loading import NONE, built
from deflect.backbones.weights import fingerprint, load_state, read_weights
from deflect.galileo.encoder import DIGITAL, Month, month_of
from deflect.vit import Blocks, chosen_blocks
from satdifuser.bank import BankError, BankSpec, FeatureBank, Tap
from satdifuser.kinds import Count, Seed, Side, checked

PACKAGE, HUB = "olmoearth-pretrain-minimal", "pretrained"
INPUTS = ("sentinel2_l2a", "sentinel1")  # Landsat's are digital numbers of level 1, not to be had from reflectance
SENTINEL2 = {
    **{"coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05", "rededge2": "B06"},
    **{"rededge3": "B07", "nir": "B08", "nir08": "B8A", "nir09": "B09", "swir16": "B11", "swir22": "B12"},
}
SENTINEL1 = {"vv": "vv", "vh": "vh"}
Size = Literal["nano", "tiny", "small", "base", "large"]
Version = Literal["v1", "v1.1", "v1.2"]


class OlmoEarthEncoder(nn.Module):
    """Tokens after the chosen blocks, at each place the mean over modalities and groups of bands; frozen.

    After the last block its last LayerNorm follows. Bands stay in their units: mean +- 2 deviations of its pretraining
    become [0, 1]. A modality of which bands are missing is filled as its authors say: v1 takes the nearest band in
    wavelength, later versions 0, as in the dropout of their pretraining; Sentinel-1 needs both of its bands.
    """

    @checked("encoder")
    def __init__(
        self,
        *,
        prepare: Any,
        weights: str = NONE,
        size: Size = "nano",
        version: Version = "v1.2",
        image_size: Side = 64,
        patch_size: Count = 8,
        gsd: Count | None = None,
        month: Month = 6,
        dates: bool = True,
        blocks: Blocks = "all",
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        if importlib.util.find_spec("olmoearth_pretrain_minimal") is None:
            raise BankError(f"encoder=olmoearth needs its authors' package: pip install {PACKAGE}")
        self.prepare, self.month, self.takes_dates, self.patch = prepare, month, dates, patch_size
        self.image_size = (image_size, image_size)
        if patch_size > 8:
            raise BankError(f"encoder.patch_size is {patch_size}: OlmoEarth has patches of up to 8 px")
        if image_size % patch_size:
            raise BankError(f"encoder.image_size is {image_size}: use a multiple of encoder.patch_size={patch_size}")
        if gsd is None and prepare.size is not None:
            raise BankError("encoder.prepare.size resizes the images: set encoder.gsd to the metres of a new pixel")
        known = {band.name: band for band in prepare.sensor}
        bands = [known[name] for name in prepare.bands]
        self.inputs = _inputs(bands, version)
        used = [bands[place] for one in self.inputs.values() for place in one.places if place is not None]
        self.metres = int(gsd if gsd is not None else min(band.gsd for band in used))
        network = built(lambda: _network(size, version), seed, f"OlmoEarth {version} {size}")
        name = f"OlmoEarth-{version.replace('.', '_')}-{size.title()}"
        if weights != NONE:
            _load(network, _file(weights, name))
        self.network = network.requires_grad_(False)
        self.blocks = chosen_blocks(blocks, len(network.blocks), name)
        self.last = self.blocks[-1] == len(network.blocks) - 1
        width = int(network.embedding_size)
        settings = {
            **prepare.settings,
            **{"bands": ",".join(dict.fromkeys(band.name for band in used)), "inputs": ",".join(self.inputs)},
            **{"filled": ",".join(b for one in self.inputs.values() for b in one.filled), "patch": patch_size},
            **{"gsd": self.metres, "month": month, "dates": dates},
        }
        self.spec = BankSpec(
            taps=tuple(Tap(f"blocks.{number}", None, number, width, patch_size) for number in self.blocks),
            encoder=name,
            weights=f"from-scratch-seed{seed}" if weights == NONE else fingerprint(network),
            image_size=self.image_size,
            settings=tuple(sorted(settings.items())),
        )

    def forward(
        self,
        images: Tensor,
        *,
        sample_ids: Sequence[str] | None = None,
        metadata: Tensor | None = None,
        dates: Tensor | None = None,
    ) -> FeatureBank:
        from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.datatypes import MaskedOlmoEarthSample

        x = self.prepare(images, sample_ids, expect=self.image_size)
        given: dict[str, Tensor] = {"timestamps": self._when(len(x), dates, x.device)}
        for name, one in self.inputs.items():
            given[name] = one.normalised(x).permute(0, 2, 3, 1)[:, :, :, None]
            given[f"{name}_mask"] = torch.zeros((*given[name].shape[:-1], one.groups(self.network)), device=x.device)
        found = self._tokens(MaskedOlmoEarthSample(**given))
        return FeatureBank(self.spec, dict(zip(self.spec.taps, found, strict=True)))

    def _when(self, count: int, dates: Tensor | None, device: torch.device) -> Tensor:
        """Day, month (from 0) and year `[batch, 1, 3]`; where no date is known, the middle of `month` of 2020."""
        default = torch.tensor([15, self.month - 1, 2020], device=device).expand(count, 3)
        if dates is None or not self.takes_dates:
            return default[:, None]
        days = dates.to(device)
        year, rest = _year(days)
        told = torch.stack([rest, month_of(days), year], dim=1)
        return torch.where((days < 0)[:, None], default, told)[:, None]

    def _tokens(self, sample: Any) -> list[Tensor]:
        """Maps after the chosen blocks, as the package's own encoder computes them."""
        net: Any = self.network
        after: dict[int, Tensor] = {}
        dims: list[dict[str, Any]] = []
        split = type(net).split_and_expand_per_modality

        def told(x: Tensor, of: dict[str, Any]) -> Any:
            dims.append(of)
            return split(x, of)

        hooks = [
            net.blocks[number].register_forward_hook(lambda _m, _i, out, number=number: after.update({number: out}))
            for number in self.blocks
        ]
        net.split_and_expand_per_modality = told
        try:
            net(sample, patch_size=self.patch, input_res=self.metres, fast_pass=True)
        finally:
            del net.split_and_expand_per_modality
            for hook in hooks:
                hook.remove()
        maps = []
        for number in self.blocks:
            tokens = net.norm(after[number]) if self.last and number == self.blocks[-1] else after[number]
            parts = [
                part.flatten(3, 4) for part in split(tokens, dims[0]).values()
            ]  # [B, rows, columns, groups, width]
            maps.append(torch.cat(parts, dim=3).mean(3).permute(0, 3, 1, 2))
        return maps


class _Modality(nn.Module):
    """Where each channel of a modality comes from, and what becomes 0 and 1 of it."""

    low: Tensor
    high: Tensor

    def __init__(self, name: str, channels: Sequence[str], places: Sequence[int | None], filled: Sequence[str]) -> None:
        super().__init__()
        from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.data.normalize import load_computed_config

        self.name, self.places, self.filled = name, tuple(places), tuple(filled)
        known = load_computed_config()[name]
        scale = DIGITAL if name == INPUTS[0] else 1.0
        edges = [[known[c]["mean"] + side * known[c]["std"] for c in channels] for side in (-2, 2)]
        low, high = (torch.tensor(edge, dtype=torch.float64) / scale for edge in edges)
        self.register_buffer("low", low.float().view(-1, 1, 1), persistent=False)
        self.register_buffer("high", high.float().view(-1, 1, 1), persistent=False)

    def normalised(self, x: Tensor) -> Tensor:
        there = [place if place is not None else 0 for place in self.places]
        values = (x[:, there] - self.low.to(x)) / (self.high - self.low).to(x)
        absent = torch.tensor([place is None for place in self.places], device=x.device).view(-1, 1, 1)
        return values.masked_fill(absent, 0.0)

    def groups(self, network: Any) -> int:
        return int(network.tokenization_config.get_num_bandsets(self.name))


def _inputs(bands: Sequence[Any], version: str) -> Any:
    """The modalities that the bands fill, in a ModuleDict."""
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.data.missing_bands import SPECTRAL_GROUPS
    from olmoearth_pretrain_minimal.olmoearth_pretrain_v1.utils.constants import Modality

    found = nn.ModuleDict()
    for name, names, unit in ((INPUTS[0], SENTINEL2, "reflectance"), (INPUTS[1], SENTINEL1, "dB")):
        where: dict[str, int] = {}
        for place, band in enumerate(bands):
            if band.common in names:
                if band.unit != unit:
                    raise BankError(f"OlmoEarth takes {band.name} in {unit}, and the sensor gives it in {band.unit}")
                where.setdefault(names[band.common], place)
        channels = list(Modality.get(name).band_order)
        lacks = [channel for channel in channels if channel not in where]
        if not where or (name == INPUTS[1] and lacks):
            continue
        places: list[int | None] = [where.get(channel) for channel in channels]
        if version == "v1" and lacks:
            waves = SPECTRAL_GROUPS[name][0]
            near = {c: min(where, key=lambda o: (abs(waves[o] - waves[c]), waves[o])) for c in lacks}
            places = [where[near.get(channel, channel)] for channel in channels]
        found[name] = _Modality(name, channels, places, lacks)
    if not len(found):
        listed = ", ".join(band.name for band in bands)
        raise BankError(f"OlmoEarth can use none of the bands {listed}: it takes Sentinel-2's, and VV with VH")
    return found


def _network(size: str, version: str) -> nn.Module:
    """The encoder alone, for the modalities that it was pretrained to read."""
    from olmoearth_pretrain_minimal import OlmoEarthPretrain_v1

    whole = OlmoEarthPretrain_v1(size, version, [*INPUTS, "landsat"])
    network: nn.Module = whole.model.encoder
    return network.eval()


def _file(weights: str, name: str) -> Path:
    """The file of weights: itself, weights.pth of a folder, or that of the hub."""
    if weights != HUB:
        path = Path(weights).expanduser()
        return path / "weights.pth" if path.is_dir() else path
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repo_id=f"allenai/{name}", filename="weights.pth"))
    except Exception as error:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise BankError(
            f"allenai/{name} cannot be had ({reason}): fetch its weights.pth and config.json elsewhere and give the"
            " folder with encoder.weights=FOLDER"
        ) from error


def _load(network: Any, file: Path) -> None:
    """The encoder of a checkpoint; what it has for other modalities, and its decoder, rest."""
    state = {n.removeprefix("encoder."): v for n, v in read_weights(file).items() if n.startswith("encoder.")}
    if not state:
        raise BankError(f"{file} has no encoder: give OlmoEarth's weights.pth, or the folder that it lies in")

    def of_others(name: str) -> bool:
        parts = name.split(".")
        return len(parts) > 2 and parts[1].startswith("per_modality_") and parts[2] not in (*INPUTS, "landsat")

    _described(network, file.parent / "config.json")
    load_state(network, {name: value for name, value in state.items() if not of_others(name)}, file)


def _described(network: Any, path: Path) -> None:
    """A config.json beside the file must say what was built: heads and positions are in no weight's shape."""
    if not path.is_file():
        return
    try:
        config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["model"]["encoder_config"]
        says = [str(config[name]) for name in ("embedding_size", "depth", "num_heads")]
        says.append(str(config.get("spatial_pos_encoding") or config.get("position_encoding") or "absolute"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BankError(f"{path} does not describe an OlmoEarth ({error}): fetch it again, or take it away") from error
    built_so = (
        network.embedding_size,
        len(network.blocks),
        network.blocks[0].attn.num_heads,
        network.position_encoding,
    )
    has = [str(value) for value in built_so]
    if says != has:
        raise BankError(
            f"{path} describes another model (width, depth, heads and positions are {' '.join(says)}, not"
            f" {' '.join(has)}): set encoder.size and encoder.version to those of the weights"
        )


def _year(days: Tensor) -> tuple[Tensor, Tensor]:
    """Year and day of the month (from 1) of days since 1970-01-01."""
    shifted = days + 719468
    era, day = shifted // 146097, shifted % 146097
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    rest = day - (365 * year + year // 4 - year // 100)
    month = (5 * rest + 2) // 153
    return year + era * 400 + (month >= 10).long(), rest - (153 * month + 2) // 5 + 1
