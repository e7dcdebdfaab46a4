"""`satdifuser embed`: an encoder's features of a scene, one pixel a patch or one row a tile."""
