"""Decoders: from the fused pyramid to logits."""

from satdifuser.decoders.base import Decoder
from satdifuser.decoders.conv import ConvDecoder
from satdifuser.decoders.dpt import DPTDecoder
from satdifuser.decoders.fitted import KNN, Fitted, Logistic, Ridge
from satdifuser.decoders.fpn import FPNDecoder
from satdifuser.decoders.light import LightDecoder
from satdifuser.decoders.linear import LinearDecoder
from satdifuser.decoders.single import SingleLevel
from satdifuser.decoders.unet import UNetDecoder
from satdifuser.decoders.upernet import UPerNet

__all__ = [
    "KNN",
    "ConvDecoder",
    "DPTDecoder",
    "Decoder",
    "FPNDecoder",
    "Fitted",
    "LightDecoder",
    "LinearDecoder",
    "Logistic",
    "Ridge",
    "SingleLevel",
    "UNetDecoder",
    "UPerNet",
]
