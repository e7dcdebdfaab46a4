"""Published sets that have a reader of their own."""
