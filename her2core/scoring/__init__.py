"""From cells and nuclei to the score of a slide.

ihc             cells to classes, percentages and score
neighbours      strongly stained cells beside a cell
ish             nuclei to ratio, copies and group
signals         counts of signals, pooled in any order
ish_nuclei      which nuclei count
genetic         genetic heterogeneity (CAP 2009)
copynumber, mixture
"""
