"""Untangled patch embedding: the auxiliary stream's tokens, from every pixel's spectrum and never from its place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deflect.indices import SpectralIndices
from satdifuser.bank import BankError

SMALLEST = 1e-6
PIXELS = 2**18  # at once


class PixelSetEncoder(nn.Module):
    """One token for each patch, from its pixels as a set: `W2 [mean(h), std(h)]` with `h = phi(W1 s)` of each pixel.

    `s` are a pixel's bands and indices. Any order of a patch's pixels gives the same token.
    """

    def __init__(self, features: int, hidden: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.pixel = nn.Conv2d(features, hidden, 1)  # W1, the same for every pixel
        self.token = nn.Linear(2 * hidden, width)  # W2
        nn.init.kaiming_normal_(self.pixel.weight, nonlinearity="linear")
        self.pixel.bias.data.zero_()  # type: ignore[union-attr]

    def forward(self, spectra: Tensor) -> Tensor:
        # What lies between is larger than the tokens of a block: it is computed part by part, and again backwards.
        count = max(1, PIXELS // (spectra.shape[-2] * spectra.shape[-1]))
        with torch.autocast(spectra.device.type, enabled=False):  # a variance needs its digits
            parts = spectra.split(count)
            moments = [checkpoint(self._moments, x, use_reentrant=False, preserve_rng_state=False) for x in parts]
        return self.token(torch.cat(moments))

    def _moments(self, spectra: Tensor) -> Tensor:
        pixels = rearrange(spectra, "b f (y i) (x j) -> (b y x) f (i j)", i=self.patch, j=self.patch)
        weight, bias = self.pixel.weight.flatten(1), self.pixel.bias
        hidden = F.gelu(torch.baddbmm(bias[:, None], weight.expand(len(pixels), -1, -1), pixels))  # type: ignore[index]
        mean = hidden.mean(2)
        variance = (hidden - mean[..., None]).square().mean(2)
        std = variance.add(SMALLEST).sqrt()  # a root has no slope at zero, and a no-data border has no variance
        return torch.cat((mean, std), dim=1).unflatten(0, (len(spectra), -1))


class UntangledPatchEmbedding(nn.Module):
    """The auxiliary tokens `[batch, patches, width]` of images in reflectance, before they meet the principal ones."""

    def __init__(self, indices: SpectralIndices, bands: int, hidden: int, width: int, patch: int) -> None:
        super().__init__()
        self.indices, self.bands, self.patch = indices, bands, patch
        self.encoder = PixelSetEncoder(bands + len(indices), hidden, width, patch)

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != self.bands:
            raise BankError(
                f"spectra of the shape {tuple(images.shape)}: [batch, {self.bands}, height, width] is needed"
            )
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch:
            raise BankError(f"spectra of {height} x {width} px are not divisible into patches of {self.patch} px")
        with torch.autocast(images.device.type, enabled=False):  # a quotient of reflectances needs its digits
            images = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
            spectra = torch.cat((images, self.indices(images)), dim=1).to(self.encoder.pixel.weight.dtype)
        return self.encoder(spectra)


def match_norm(tokens: Tensor, like: Tensor) -> Tensor:
    """Tokens at the length that another stream's tokens have: both streams live on one scale.

    >>> match_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 10.0]])).tolist()
    [[6.0, 8.0]]
    """
    length = torch.linalg.vector_norm(
        tokens, dim=-1, keepdim=True, dtype=torch.promote_types(tokens.dtype, torch.float32)
    )
    wanted = torch.linalg.vector_norm(like, dim=-1, keepdim=True, dtype=length.dtype)
    return (tokens * (wanted / length.clamp_min(SMALLEST))).to(like.dtype)
