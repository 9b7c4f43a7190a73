"""Pictures that a run leaves for people to look at.

colours     what every class, score and group is drawn in
canvas      what all of them share
ihc, ish    a slide: its cells by class, or its nuclei with their signals
regions     a slide's hexagons
cohort      every specimen
"""
