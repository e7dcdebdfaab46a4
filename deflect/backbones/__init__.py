"""Pretrained ViTs of timm and torchgeo, each as its library built it; Prithvi and TerraMind as timm builds them."""

from deflect.backbones.base import Backbone
from deflect.backbones.loading import small_vit, timm_vit, torchgeo_vit
from deflect.backbones.prithvi import prithvi_vit
from deflect.backbones.terramind import terramind_vit

__all__ = ["Backbone", "prithvi_vit", "small_vit", "terramind_vit", "timm_vit", "torchgeo_vit"]
