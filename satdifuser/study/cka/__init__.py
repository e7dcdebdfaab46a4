"""How alike the places of two networks are: before and after training, or of any two encoders."""

from satdifuser.study.cka.flow import likeness

__all__ = ["likeness"]
