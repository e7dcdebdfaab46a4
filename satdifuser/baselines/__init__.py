"""Encoders trained from scratch, to know what pretrained features are worth."""
