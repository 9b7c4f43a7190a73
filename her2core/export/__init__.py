"""Finished runs for other programs: each in a form that the program opens by itself."""
