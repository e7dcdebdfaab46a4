"""Time: every encoder reads each date of a sample, and a temporal head makes one bank of them."""

from satdifuser.temporal.attention import TemporalAttention
from satdifuser.temporal.base import TemporalHead
from satdifuser.temporal.pooled import Difference, TemporalMax, TemporalMean
from satdifuser.temporal.reading import encode, read

__all__ = ["Difference", "TemporalAttention", "TemporalHead", "TemporalMax", "TemporalMean", "encode", "read"]
