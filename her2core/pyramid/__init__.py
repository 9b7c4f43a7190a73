"""OME-Zarr pyramids: written shard by shard, read by regions, opened with xarray.

writer      stage ``pyramid``: a slide file becomes levels of shards
reader      regions of a level into a buffer
dataset     levels and pyramids as xarray
labels      masks on the grid of a level
ngff        the metadata documents
shards      one Zarr v3 shard, encoded and decoded
codecs      how chunks are encoded and decoded
"""
