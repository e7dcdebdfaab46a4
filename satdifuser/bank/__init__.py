"""The feature bank: the one contract between encoders, fusion heads, the store and the analysis.

An encoder says with a `BankSpec` which maps it gives; a `FeatureBank` holds them for a batch. Maps are addressed by
tap, by timestep or by stride, never by their place in a list. This package imports nothing of the project.
"""

from satdifuser.bank.bank import FeatureBank
from satdifuser.bank.spec import BankError, BankSpec, Tap

__all__ = ["BankError", "BankSpec", "FeatureBank", "Tap"]
