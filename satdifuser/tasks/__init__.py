"""Tasks: loss, metrics and prediction of segmentation, classification, multi-label classification and regression."""

from satdifuser.tasks.base import Task
from satdifuser.tasks.classification import Classification
from satdifuser.tasks.multilabel import MultiLabel
from satdifuser.tasks.regression import Regression
from satdifuser.tasks.segmentation import Segmentation

__all__ = ["Classification", "MultiLabel", "Regression", "Segmentation", "Task"]
