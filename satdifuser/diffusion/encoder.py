"""The diffusion encoder: images -> latents -> noisy latents -> the UNet's maps -> a feature bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Len
from torch import Tensor, nn

from satdifuser.bank import BankSpec, FeatureBank, Tap
from satdifuser.data.inputs import ImageInput, SampleCheck
from satdifuser.data.trained import warn_of_other_range
from satdifuser.diffusion import modes
from satdifuser.diffusion.adapting import Adapter, adapt, hold_unread
from satdifuser.diffusion.attention import Attention, use_attention
from satdifuser.diffusion.compat import WAYS, Compat
from satdifuser.diffusion.latents import LatentEncoder, Posterior
from satdifuser.diffusion.loading import Backbone, cast
from satdifuser.diffusion.modes import Mode
from satdifuser.diffusion.network import TappedUNet
from satdifuser.diffusion.satunet import METADATA, normalise_metadata
from satdifuser.diffusion.schedule import NoiseSchedule, Prediction
from satdifuser.diffusion.selection import Wanted, check_size, choose_taps, kind_of, latent_factor, taps_until
from satdifuser.errors import UserError
from satdifuser.kinds import Count, Seed, Side, Whole, checked

Numbers = Literal["float32", "bfloat16", "float16", "auto"]  # auto: 16 bits where there is a GPU
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class DiffusionEncoder(nn.Module):
    """A diffusion model as an encoder, frozen or with an adapter on its UNet.

    The features of a sample are a function of (weights, image, prompt or metadata, timesteps, mode, seed, sample id)
    and, up to rounding, of nothing else: not of its batch, nor of the order, the workers or the processes.

    `mode` is `noise` (closed form), `inversion` or `generation` (DDIM, with `steps` over the whole schedule);
    `save_steps` gives the timesteps in the published notation instead, counted in those steps from noise to clean;
    `noise_draws` averages the features of `noise` over so many independent draws. A path takes the UNet's output for
    what its scheduler says, or for `prediction`. `compat=released` does as the released code does where no other
    setting says it: mode, prediction, posterior, and the first step of an inversion. `metadata` is `none`, `samples`
    (each sample's own) or one list of numbers for all. `precision` (`auto`: 16 bits on a GPU, else float32) is the
    UNet's; the VAE's is the same, but float32 where that is float16, and the maps leave in `output_precision`. `batch`
    bounds how many inputs go through a network at once; null finds the bound by itself. What an `adapter` trains is
    trained with the head.
    """

    @checked("encoder")
    def __init__(
        self,
        backbone: Backbone,
        *,
        prepare: ImageInput,
        taps: Wanted,
        timesteps: Sequence[int],
        image_size: Side = 64,
        seed: Seed = 0,
        compat: Compat = "ours",
        mode: Mode | None = None,
        prediction: Prediction | None = None,
        steps: Count = 50,
        save_steps: Annotated[Sequence[Whole], Len(1)] | None = None,
        noise_draws: Count = 1,
        metadata: Literal["none", "samples"] | Sequence[float] = "none",
        posterior: Posterior | None = None,
        precision: Numbers = "float32",
        vae_precision: Numbers | None = None,
        output_precision: Numbers | None = None,
        channels_last: bool = False,
        attention: Attention = "sdpa",
        compile: bool = False,
        batch: Count | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__()
        self.constant_metadata: Tensor | None
        way = WAYS[compat]
        mode = mode or way.mode
        if noise_draws > 1 and mode != "noise":
            raise UserError(f"encoder.noise_draws is {noise_draws}: more than 1 is for encoder.mode=noise alone")
        schedule = NoiseSchedule(backbone.scheduler, prediction or way.prediction)
        later = way.counts_on and mode == "generation"
        wanted = schedule.resolve(timesteps, save_steps, steps, generation=later)
        way.check(schedule, mode)
        _check_image(backbone, prepare, image_size)
        if backbone.folder is not None:
            warn_of_other_range(prepare, backbone.folder)
        target = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # where it will be moved to
        unet_dtype = _precision(precision, target, way.half)
        vae_dtype = _precision(vae_precision or _safe(unet_dtype), target, "bfloat16")
        output_dtype = unet_dtype if output_precision is None else _precision(output_precision, target, way.half)
        chosen = choose_taps(backbone, taps, image_size)

        self.prepare, self.mode = prepare, mode
        self.levels = modes.Levels(wanted, schedule, steps, seed, noise_draws, way.first)
        schedule.levels(wanted, steps)  # refuses a number of steps that the schedule cannot have
        unet = cast(backbone.unet, unet_dtype)
        if channels_last:
            unet = unet.to(memory_format=torch.channels_last)
        use_attention(unet, attention, target)
        self.network = TappedUNet(
            unet,
            chosen,
            image_size,
            prompt=backbone.prompt,
            output_dtype=output_dtype,
            batch=batch,
            compiled=compile,
        )
        self.latents = None
        if backbone.vae is not None:
            drawn = posterior or way.posterior
            self.latents = LatentEncoder(backbone.vae, dtype=vae_dtype, posterior=drawn, seed=seed, batch=batch)
        self._set_metadata(metadata, backbone.num_metadata)
        settings = {**self._settings(backbone), **prepare.settings}
        self.adapter = adapter
        if adapter is not None and adapt(self.network, adapter, backbone.name, mode, seed):
            hold_unread(self.network, image_size // self.latent_stride, 0 if metadata == "none" else self.num_metadata)
            settings |= {"adapter": adapter.describe(), "adapter_seed": seed}
        self.spec = BankSpec(
            taps=tuple(replace(tap, timestep=t) for t in wanted for tap in chosen),
            encoder=backbone.name,
            weights=backbone.fingerprint,
            image_size=(image_size, image_size),
            mode=mode,
            settings=tuple(sorted(settings.items())),
        )

    @staticmethod
    def settled(settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings with what `compat` decides said: so a run's record tells it, and the same runs have the same key."""
        way = WAYS.get(str(settings.get("compat", "ours")))
        decided = {} if way is None else {"mode": way.mode, "posterior": way.posterior, "prediction": way.prediction}
        return {key: decided.get(key) if value is None else value for key, value in settings.items()}

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def check(self) -> SampleCheck:
        """What a sample must be for this encoder; the loader asks it where the sample is read."""
        numbers = self.num_metadata if self.metadata_source == "samples" else 0
        return SampleCheck(self.prepare, self.spec.image_size, numbers)

    def forward(
        self,
        images: Tensor,
        *,
        sample_ids: Sequence[str] | None = None,
        metadata: Tensor | None = None,
    ) -> FeatureBank:
        if sample_ids is None or len(sample_ids) != len(images):
            raise UserError(f"the noise depends on each sample's id: give {len(images)} sample_ids")
        latents = self.encode(images, sample_ids=sample_ids)[self.latent_spec.taps[0]]
        return self.from_latents(latents, sample_ids=sample_ids, metadata=metadata)

    def encode(self, images: Tensor, *, sample_ids: Sequence[str]) -> FeatureBank:
        """What goes into the UNet: the VAE's latents, or the prepared pixels where there is none."""
        with torch.autocast(images.device.type, enabled=False):
            clean = self.prepare(images.float(), sample_ids, expect=self.spec.image_size)
            if self.latents is not None:
                clean = self.latents(clean, sample_ids)
        return FeatureBank(
            self.latent_spec, {self.latent_spec.taps[0]: clean.contiguous()}
        )  # as it comes back from a store

    def from_latents(
        self, latents: Tensor, *, sample_ids: Sequence[str], metadata: Tensor | None = None
    ) -> FeatureBank:
        """The features of latents that `encode` gave, now or in an earlier run."""
        with torch.autocast(latents.device.type, enabled=False):
            clean = latents.float()
            numbers = self._metadata(metadata, sample_ids, clean)
            maps = {
                (name, timestep): value
                for timestep, found in modes.MODES[self.mode](self.network, clean, sample_ids, self.levels, numbers)
                for name, value in found.items()
            }
        return FeatureBank(self.spec, {tap: maps[tap.name, int(tap.timestep or 0)] for tap in self.spec.taps})

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of modules that can be read: of those that are computed up to the last tap."""
        return tuple(dict.fromkeys(kind_of(tap.name) for tap in self._inside()))

    def read_at(self, modules: Sequence[str] | Literal["all"]) -> None:
        """Read these kinds of modules from now on, as far as the last tap; nothing else of the encoder changes."""
        chosen = [tap for tap in self._inside() if modules == "all" or kind_of(tap.name) in modules]
        if not chosen:
            raise UserError(
                f"{self.spec.encoder} has no {', '.join(modules)} up to its last tap: it has {', '.join(self.kinds)}"
            )
        chosen = [replace(tap, depth=depth) for depth, tap in enumerate(chosen)]
        self.network.read_at(chosen, self.spec.image_size[0])
        at = self.spec.timesteps
        self.spec = replace(self.spec, taps=tuple(replace(tap, timestep=t) for t in at for tap in chosen))

    def _inside(self) -> list[Tap]:
        vae = None if self.latents is None else self.latents.vae
        known = Backbone(self.network.unet, None, self.spec.encoder, "", vae, self.network.prompt)
        return taps_until(known, self.spec.image_size[0], self.network.names[-1])

    @property
    def latent_stride(self) -> int:
        """Pixels of the image to one of what goes into the UNet, along a side."""
        return 1 if self.latents is None else latent_factor(self.latents.vae)

    @property
    def latent_spec(self) -> BankSpec:
        """The spec of what `encode` gives: everything that the latents depend on, and nothing of the UNet's work."""
        channels = self.network.unet.config["in_channels"]
        settings: dict[str, Any] = dict(self.prepare.settings)
        if self.latents is not None:
            word = next(word for word, dtype in PRECISIONS.items() if dtype == self.latents.dtype)
            settings |= {"posterior": self.latents.posterior, "vae_precision": word}
            if self.latents.posterior == "sample":
                settings["seed"] = self.levels.seed
        return replace(
            self.spec,
            taps=(Tap("latent", None, 0, channels, self.latent_stride),),
            mode="latents",
            settings=tuple(settings.items()),
        )

    def _set_metadata(self, metadata: str | Sequence[float], reads: int) -> None:
        self.num_metadata = reads
        self.metadata_source = metadata if isinstance(metadata, str) else "constant"
        constant = None
        if not isinstance(metadata, str):
            constant = torch.tensor([float(number) for number in metadata])
            if reads != len(METADATA) or len(constant) != reads or not bool(constant.isfinite().all()):
                raise UserError(f"encoder.metadata is {list(metadata)}: the UNet reads {reads} finite numbers")
        elif metadata not in ("none", "samples"):
            raise UserError(f"encoder.metadata is {metadata!r}: it can be none, samples, or a list of {reads} numbers")
        elif metadata == "samples" and reads not in (0, len(METADATA)):
            raise UserError(
                f"encoder.metadata is 'samples', but the UNet reads {reads} numbers, not DiffusionSat's seven"
            )
        elif metadata == "samples" and not reads:
            raise UserError("encoder.metadata is 'samples', but the UNet reads no metadata: set encoder.metadata=none")
        self.register_buffer("constant_metadata", constant, persistent=False)

    def _metadata(self, given: Tensor | None, sample_ids: Sequence[str], like: Tensor) -> Tensor | None:
        """Normalised numbers for each sample, or None where the metadata is left out."""
        if self.metadata_source == "none":
            return None
        if self.constant_metadata is not None:
            return normalise_metadata(self.constant_metadata).expand(len(like), -1)
        if given is None:
            raise UserError(
                f"sample {sample_ids[0]}: the data set gives no metadata: set encoder.metadata=none, or to a list of"
                f" {self.num_metadata} numbers"
            )
        if tuple(given.shape) != (len(like), self.num_metadata):
            raise UserError(
                f"sample {sample_ids[0]}: metadata has the shape {tuple(given.shape)}, but the UNet reads"
                f" {self.num_metadata} numbers for each of {len(like)} samples"
            )
        if given.device.type == "cpu" and not bool(given.isfinite().all()):  # on a GPU the loader has looked
            unknown = int((~given.isfinite()).any(1).nonzero()[0])
            raise UserError(f"sample {sample_ids[unknown]}: metadata has NaN or infinite numbers: fill them in")
        return normalise_metadata(given.to(like))

    def _settings(self, backbone: Backbone) -> dict[str, Any]:
        """What else features depend on: recorded, so that features made otherwise are not taken for these."""
        name = {dtype: word for word, dtype in PRECISIONS.items()}
        found: dict[str, Any] = {"precision": name[self.network.dtype]}
        if self.network.output_dtype != self.network.dtype:
            found["output_precision"] = name[self.network.output_dtype]
        if self.mode == "noise":
            found["noise_draws"] = self.levels.draws
        else:
            found["steps"] = self.levels.steps
            if self.levels.schedule.prediction != self.levels.schedule.trained:
                found["prediction"] = self.levels.schedule.prediction
        if self.mode == "inversion" and self.levels.first != 0:
            found["first_timestep"] = self.levels.first
        if self.latents is not None:
            found |= {"posterior": self.latents.posterior, "vae_precision": name[self.latents.dtype]}
        if self.mode != "inversion" or found.get("posterior") == "sample":
            found["seed"] = self.levels.seed
        if backbone.prompt is not None:
            found["prompt"] = backbone.text
        if self.metadata_source != "none":
            constant = self.constant_metadata
            found["metadata"] = "samples" if constant is None else [round(float(x), 6) for x in constant]
        return found


def _check_image(backbone: Backbone, prepare: ImageInput, image_size: int) -> None:
    reader = backbone.unet if backbone.vae is None else backbone.vae
    channels = reader.config["in_channels"]
    if prepare.channels != channels:
        raise UserError(f"the UNet reads {channels} channels, but the input gives {', '.join(prepare.bands)}")
    if backbone.vae is not None and backbone.vae.config["latent_channels"] != backbone.unet.config["in_channels"]:
        raise UserError(
            f"the VAE makes latents of {backbone.vae.config['latent_channels']} channels, but the UNet reads"
            f" {backbone.unet.config['in_channels']}: they are not of one text-to-image model"
        )
    check_size(backbone, image_size)


def _precision(word: str, device: torch.device, half: str) -> torch.dtype:
    if word == "auto":
        return PRECISIONS[half if device.type == "cuda" else "float32"]
    return PRECISIONS[word]


def _safe(unet: torch.dtype) -> str:
    """The VAE's default precision: its activations overflow in float16."""
    return "bfloat16" if unet == torch.bfloat16 else "float32"
