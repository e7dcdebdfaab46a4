"""Fusion heads: from a bank of maps (timestep x depth) to one map per stride."""

from satdifuser.fusion.base import Fused, FusionHead, PyramidSpec
from satdifuser.fusion.concat import Concatenated
from satdifuser.fusion.gw import GlobalWeighted
from satdifuser.fusion.levels import Levels
from satdifuser.fusion.lw import LocalizedWeighted
from satdifuser.fusion.mean import UniformMean
from satdifuser.fusion.moe import MixtureOfExperts
from satdifuser.fusion.plain import Plain

__all__ = [
    "Concatenated",
    "Fused",
    "FusionHead",
    "GlobalWeighted",
    "Levels",
    "LocalizedWeighted",
    "MixtureOfExperts",
    "Plain",
    "PyramidSpec",
    "UniformMean",
]
