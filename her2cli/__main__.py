"""``python -m her2cli`` is ``her2``."""

from her2cli import main

main()
