"""Points and graphs on the plane: no pixels, no files."""
