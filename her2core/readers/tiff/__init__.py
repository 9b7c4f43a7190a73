"""TIFF and BigTIFF: tags, pages, scenes, samples, tiles."""
