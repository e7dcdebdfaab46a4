"""Pretrained vision transformers of timm and torchgeo, each as its library built it."""

from deflect.backbones.base import Backbone
from deflect.backbones.loading import small_vit, timm_vit, torchgeo_vit

__all__ = ["Backbone", "small_vit", "timm_vit", "torchgeo_vit"]
