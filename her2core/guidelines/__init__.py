"""Guideline rules: cited data in YAML, and the integer comparisons that read it.

rules_ihc, rules_ish, rules_case    the files in ``ihc``, ``ish`` and ``case``, read and applied
rule_files                          the files, as text
"""
