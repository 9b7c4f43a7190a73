"""Folders and object stores: where slides come from, and where results go.

store       whole objects, conditional writes, content keys
s3          addresses and sessions
sources     slide files, ranged or staged to scratch
journal     where every slide of a cohort is
"""
