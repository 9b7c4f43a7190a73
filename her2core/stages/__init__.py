"""The stages of one slide: what workers run, and what they publish.

run             a cohort's manifest, configuration and store, checked
steps           inspect, pyramid and profile, a task each
cells           cells or nuclei, unit by unit
slide*          score, tables, regions and pictures of a slide
nuclei_table    nuclei and their signals as rows
fanout          many tasks on Dask, a bounded number at a time
progress        of long work, for people
"""
