"""The report of a run: one self-contained page, and the data behind its figures.

It reads finished tables and stored pictures, never a pixel, and computes no result of its own.

run_tables     what a run left, as of that run
words          codes in words
slides         a slide as the page shows it, and how far it came
specimens      a specimen as the page shows it, and what disagrees in it
quality        outliers of quality control
batches        differences between scanners, laboratories, clones and dates
figures        the table behind every figure
data_files     these tables as CSV and Parquet
inlined        which pictures the page carries
page           the page: template, style, script and data in one file
build          all of it, for a run
compare        what changed between two runs
"""
