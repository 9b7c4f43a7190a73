"""Questions that a cohort's finished tables answer: agreement of readers, outcome, RNA.

Tables in, tables, figures and a text out: nothing here looks at a pixel or changes a table of the run. What
the data do not support is a sentence of the text, not a number.
"""
