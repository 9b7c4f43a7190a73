"""A finished run in a browser on this machine: slides, cells over them, marks of a person."""
