"""Losses to choose in place of a task's own: of classes, by element (cross-entropy, focal) or by image (overlap)."""

from satdifuser.losses.base import Loss
from satdifuser.losses.combined import Combined
from satdifuser.losses.elements import CrossEntropy, Focal
from satdifuser.losses.overlap import Dice, Jaccard, Lovasz

__all__ = ["Combined", "CrossEntropy", "Dice", "Focal", "Jaccard", "Loss", "Lovasz"]
