"""Specimens, lesions and patients.

specimens       slides pooled, IHC and ISH combined
ish             the ISH arm of a specimen
comparisons     which slides make blocks and lesions to compare
patients        specimens side by side, never merged
external        ISH results of a laboratory, from the manifest
clinical*       tables of others, cleaned
"""
