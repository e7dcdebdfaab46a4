"""The settings of every command: one typed model for each group, where its kinds and ranges are said once."""
