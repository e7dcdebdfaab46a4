"""Whole scenes: windows in, the model as the trainer calls it, blended and georeferenced maps or embeddings out."""
