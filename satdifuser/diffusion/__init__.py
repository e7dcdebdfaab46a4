"""Diffusion backbones as encoders: loading, noising, taps, and the encoder itself."""
