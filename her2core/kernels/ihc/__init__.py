"""Nuclei and membranes of IHC: arrays in, rows of cells out."""
