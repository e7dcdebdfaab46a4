"""Data sets and what describes them: bands, splits, batches, and the built-in scenes."""
