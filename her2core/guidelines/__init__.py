"""Guideline rules: cited data in YAML (``ihc``, ``ish``, ``case``), and the integer comparisons that read it."""
