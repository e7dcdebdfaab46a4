"""Augmentation of training batches: images and masks changed at random, the same way for a seed, a step and an id."""

from satdifuser.augment.base import Augmentation
from satdifuser.augment.sampled import RandomAugmentation

__all__ = ["Augmentation", "RandomAugmentation"]
