"""What of a pretrained ViT trains: the methods that are compared, behind one switch."""

from deflect.adapters.base import Adapter
from deflect.adapters.lowrank import Lora, Peft, ScaledLowRank
from deflect.adapters.tuning import BitFit, Frozen, Full, NormTuning
from deflect.adapters.untangled import Deflect
from deflect.model import parameter_counts

__all__ = [
    "Adapter",
    "BitFit",
    "Deflect",
    "Frozen",
    "Full",
    "Lora",
    "NormTuning",
    "Peft",
    "ScaledLowRank",
    "parameter_counts",
]
