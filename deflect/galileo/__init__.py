"""Galileo (Tseng et al. 2025), written anew from what is published: bands in groups, each a token at every place."""

from deflect.galileo.encoder import GalileoEncoder

__all__ = ["GalileoEncoder"]
