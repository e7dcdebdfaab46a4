"""Pretraining on unlabelled images: diffusion in pixels or latents, the small VAE, and what they share."""
