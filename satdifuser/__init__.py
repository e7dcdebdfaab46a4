"""satdifuser: diffusion features as representations, and their fair comparison with discriminative models."""

__version__ = "0.1.0"
