"""Tasks: loss, metrics and prediction of segmentation, classification and regression, of images or pixels."""

from satdifuser.tasks.base import Task
from satdifuser.tasks.classification import Classification
from satdifuser.tasks.multilabel import MultiLabel
from satdifuser.tasks.pixel_regression import PixelRegression
from satdifuser.tasks.regression import Regression
from satdifuser.tasks.segmentation import Segmentation

__all__ = ["Classification", "MultiLabel", "PixelRegression", "Regression", "Segmentation", "Task"]
