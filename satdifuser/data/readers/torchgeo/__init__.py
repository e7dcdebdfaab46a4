"""Data sets of torchgeo by their names."""

from satdifuser.data.readers.torchgeo.reader import TorchGeo

__all__ = ["TorchGeo"]
