"""Files as numbers: pictures and rasters, their names, and by what they are known."""
