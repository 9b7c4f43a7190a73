"""Guideline rules: cited data in YAML, and the integer comparisons that read it.

rules_ihc, rules_ish, rules_case    what the files in ``ihc``, ``ish`` and ``case`` say, and its application
rule_files                          the files, as text
"""
