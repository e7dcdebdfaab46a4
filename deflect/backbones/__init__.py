"""Pretrained vision transformers of timm and torchgeo, each as its library built it, and Prithvi as timm builds it."""

from deflect.backbones.base import Backbone
from deflect.backbones.loading import small_vit, timm_vit, torchgeo_vit
from deflect.backbones.prithvi import prithvi_vit

__all__ = ["Backbone", "prithvi_vit", "small_vit", "timm_vit", "torchgeo_vit"]
