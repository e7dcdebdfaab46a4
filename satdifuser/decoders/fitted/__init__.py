"""Decoders that are fitted to all training samples at once, in place of being trained by steps."""

from satdifuser.decoders.fitted.base import Fitted, Rows, is_fitted
from satdifuser.decoders.fitted.linear import Logistic, Ridge
from satdifuser.decoders.fitted.neighbours import KNN

__all__ = ["KNN", "Fitted", "Logistic", "Ridge", "Rows", "is_fitted"]
