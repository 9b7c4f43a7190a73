"""Version of every stage: part of the content key of what it makes.

Raise one whenever the same input and parameters would give another output; see
`tests/test_stage_versions.py`. They stand here, and not beside the work, because a run's driver makes keys
and must not load what its workers compute with.
"""

from __future__ import annotations

PYRAMID = 6
"""The same slide and parameters would give other pixels or files."""
PROFILE = 7
"""The same pyramid and parameters would give another profile or tissue mask."""
CELLS = 16
"""The same pixels and parameters would give other rows, or other parts."""
SLIDE = 27
"""The same cells and parameters would give other rows or another picture."""
OUTLINES = 2
"""The same file would give other nuclei."""
CONTOURS = 1
"""The same cells would give other files."""
