"""Images, masks and labels as people have them, found by patterns of their names."""
