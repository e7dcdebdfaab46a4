"""Rendered scenes whose truth is known."""

from satdifuser.data.synthetic.dataset import SyntheticScenes

__all__ = ["SyntheticScenes"]
