"""Heterogeneity, from cells to regions to slides to specimens, with intervals.

catalogue               every metric by name
ihc, ish                all metrics of a slide
between, units          how blocks, slides and lesions differ
regions, dataset        hexagons, and their maps
diversity               how cells differ
spatial, spatial_cells  how neighbours resemble each other
lattice, variogram, pattern, biopsy
blocks, bootstrap, jackknife  intervals
metrics                 one number, never without what it rests on
"""
