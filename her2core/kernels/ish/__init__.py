"""Nuclei and signals of FISH and DISH: arrays in, rows of nuclei and signals out."""
