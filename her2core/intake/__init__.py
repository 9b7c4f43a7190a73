"""Text and files from outside: the manifest, the slides it names, regions of interest and outlines."""
