"""What comes out: units on disk until all are there, then a COG, Zarr or GeoParquet, and a picture."""
