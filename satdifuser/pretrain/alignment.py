"""What a UNet learns beside denoising: to say, of a noisy image, what another encoder or a second view sees in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satdifuser.bank import FeatureBank
from satdifuser.data.inputs import ImageInput
from satdifuser.diffusion.taps import recording
from satdifuser.errors import UserError, nearest
from satdifuser.pretrain.denoising import Denoising
from satdifuser.pretrain.draws import Draws
from satdifuser.pretrain.views import Views

if TYPE_CHECKING:
    from satdifuser.settings.pretraining import Align

ALIKE = 1e-4  # what is added to a deviation, and as a share of the largest to a variance: some channels are constant


class Teacher(nn.Module):
    """A frozen encoder's maps of the clean images, side by side, each channel standardised by those of some images.

    With `components`, so many principal directions of the channels are standardised in their place: of channels that
    say nearly the same, as answers of random filters do, the little in which they differ counts as much as the rest.
    """

    mean: Tensor
    turn: Tensor

    def __init__(
        self, encoder: Any, prepare: ImageInput, images: Tensor, *, components: int | None = None, batch: int = 32
    ) -> None:
        super().__init__()
        self.encoder, self.prepare = encoder.eval().requires_grad_(False), prepare
        lacking = [band for band in encoder.prepare.bands if band not in prepare.bands]
        if lacking:
            raise UserError(
                f"teacher sees {', '.join(lacking)}, which the UNet's input lacks: set teacher.prepare.bands to some of"
                f" prepare.bands, {', '.join(prepare.bands)}"
            )
        self.stride = min(tap.stride for tap in encoder.spec.taps)
        found = torch.cat([self._maps(part) for part in images.split(batch)])
        rows = found.permute(0, 2, 3, 1).flatten(0, 2).double()
        mean = rows.mean(0)
        turn = _scales(rows - mean) if components is None else _directions(rows - mean, components)
        self.channels = turn.shape[1]
        self.register_buffer("mean", mean.float(), persistent=False)
        self.register_buffer("turn", turn.float(), persistent=False)

    def train(self, mode: bool = True) -> Teacher:
        return super().train(False)

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        found = self._maps(inputs).movedim(1, -1) - self.mean
        return (found @ self.turn).movedim(-1, 1)

    @torch.no_grad()
    def _maps(self, inputs: Tensor) -> Tensor:
        """The maps of all taps at the finest of their strides."""
        bank: FeatureBank = self.encoder(self.prepare.sensed(inputs))
        maps = [bank[tap].float() for tap in bank.spec.taps]
        side = inputs.shape[-1] // self.stride
        return torch.cat([m if m.shape[-1] == side else F.interpolate(m, (side, side)) for m in maps], dim=1)


def _scales(rows: Tensor) -> Tensor:
    """What standardises each column of centred rows."""
    return torch.diag(1 / (rows.std(0) + ALIKE))


def _directions(rows: Tensor, count: int) -> Tensor:
    """What turns centred rows into their first principal components, each of deviation 1."""
    if count > min(rows.shape):
        raise UserError(
            f"align.components is {count}: the teacher has {rows.shape[1]} channels, and {len(rows)} places of it were"
            " looked at; give fewer"
        )
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    return vectors / (values.clamp(min=0) + ALIKE * values[0]).sqrt()


class Aligned(nn.Module):
    """Denoising, and at one place of the UNet a loss of its own; what it needs beside the UNet is thrown away.

    `teacher` (Yu et al. 2025, REPA): a small head on the map of the noisy image says what the teacher's maps of the
    clean one are, place by place; the loss is 1 - cosine. `views` (Bardes et al. 2022, VICReg): another view of the
    image gives the same vector, and the vectors of other images differ.
    """

    def __init__(
        self,
        denoising: Denoising,
        tap: str,
        *,
        head: nn.Module | None = None,
        teacher: Teacher | None = None,
        weight: float = 0.5,
        views: Views | None = None,
        views_weight: float = 0.02,
    ) -> None:
        super().__init__()
        self.denoising, self.tap = denoising, tap
        self.head, self.teacher, self.weight = head, teacher, weight
        self.views, self.views_weight = views, views_weight

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """The loss of each image; what views add is of the batch, and each image has it."""
        with recording(self.denoising.unet, [self.tap]) as read:
            loss: Tensor = self.denoising(images, draws)
        if self.teacher is not None:
            loss = loss + self.weight * self.unlike(read[self.tap], self.teacher(images))
        if self.views is not None:
            loss = loss + self.views_weight * self.views(read[self.tap], self._second(images, draws, self.views))
        return loss

    def unlike(self, found: Tensor, wanted: Tensor) -> Tensor:
        """One minus the cosine of what the head says and what the teacher sees, its mean over the places of an image.

        A map that is coarser than the teacher's says what there is on the whole of each of its places.
        """
        assert self.head is not None
        side = min(found.shape[-1], wanted.shape[-1])
        found, wanted = (F.adaptive_avg_pool2d(one, side) for one in (found, wanted))
        return 1 - F.cosine_similarity(self.head(found).float(), wanted, dim=1).mean((1, 2))

    def _second(self, images: Tensor, draws: Draws, views: Views) -> Tensor:
        """The map of another view of each image, with a little noise; the UNet stops there."""
        clean = self.denoising.latents(views.cut(images, draws))
        levels = views.levels(draws)
        noisy = self.denoising.noised(clean, draws.normal(tuple(clean.shape[1:])), levels)
        with recording(self.denoising.unet, [self.tap], last=self.tap) as read:
            self.denoising.unet(noisy, levels, return_dict=False)
        return read[self.tap]


def align(denoising: Denoising, settings: Align, teacher: Teacher | None, side: int, seed: int) -> Aligned:
    """The objective of some settings, with heads drawn from a seed; `side` is that of the UNet's input."""
    channels = _channels(denoising, settings.tap, side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = None if teacher is None else _head(channels, settings.width, teacher.channels)
        views = None if settings.views is None else Views(channels)
    weights = {"weight": settings.weight, "views_weight": settings.views or 0.0}
    return Aligned(denoising, settings.tap, head=head, teacher=teacher, views=views, **weights)


def _head(channels: int, width: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 1), nn.SiLU(), nn.Conv2d(width, out, 1))


def _channels(denoising: Denoising, tap: str, side: int) -> int:
    """How wide the map at a place of the UNet is."""
    unet: Any = denoising.unet
    known = [name for name, _ in unet.named_modules() if name]
    if tap not in known:
        raise UserError(f"align.tap is {tap}, and the UNet has no such module{nearest(tap, known)}")
    images = torch.zeros(1, unet.config["in_channels"], side, side)
    with torch.no_grad(), recording(unet, [tap], last=tap) as read:
        unet(images, torch.zeros(1, dtype=torch.long), return_dict=False)
    value = read.get(tap)
    if not isinstance(value, Tensor) or value.ndim != 4:
        raise UserError(f"align.tap is {tap}, which gives no map [batch, channels, height, width]: try mid_block")
    return value.shape[1]
