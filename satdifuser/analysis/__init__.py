"""Statistics over test samples: intervals, paired tests, corrections."""
