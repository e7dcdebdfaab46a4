"""A grid of runs: which there are, what they share, doing them, and reading what came out."""
