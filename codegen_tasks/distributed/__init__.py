"""Steps run by Dask workers, which share no file system with us."""
