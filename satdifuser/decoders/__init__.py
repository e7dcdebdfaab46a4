"""Decoders: from the fused pyramid to logits."""

from satdifuser.decoders.base import Decoder
from satdifuser.decoders.linear import LinearDecoder
from satdifuser.decoders.upernet import UPerNet

__all__ = ["Decoder", "LinearDecoder", "UPerNet"]
