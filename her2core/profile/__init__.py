"""What is slide-global, frozen before any cell is seen.

build           stage ``profile``: light, stains, tissue and quality of a slide
sampling        the pixels that it rests on
tissue, qc      where tissue is, and what is wrong with it
fluorescence    grey levels of channels
"""
