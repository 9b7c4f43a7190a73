"""``python -m flows.cli`` is ``her2``."""

from flows.cli import main

main()
