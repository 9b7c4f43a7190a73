"""Lake tables and cubes.

schema          every table and column, with its unit and meaning
rows*           from results to rows, and from kernel rows of cells and nuclei to those of tables
slide_files     a slide's cells and nuclei as Parquet, written by workers
tables          commits, by the driver alone
finished        tables of a run as others read them, of any version
ghosts          rows of what the manifests no longer list are removed
cube            regions and metrics as Zarr, opened with xarray
"""
