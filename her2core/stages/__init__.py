"""The stages of one slide: what workers run, and what they publish.

run             a cohort's manifest, configuration and store, checked
prepare         inspect, pyramid and profile, a task each
cells           cells or nuclei, unit by unit
slide*          score, tables, regions and pictures of a slide
fanout          many tasks on Dask, a bounded number at a time
progress        of long work, for people
"""
