"""GEO-Bench: v1 is HDF5 files (`v1`, `partition`, `inert`), 2 is tortillas (`v2`, `tortilla`, `parts`, `moments`)."""

from satdifuser.data.readers.geobench.v1 import GeoBench
from satdifuser.data.readers.geobench.v2 import GeoBench2

__all__ = ["GeoBench", "GeoBench2"]
