"""``python -m lakehouse_pipeline.cli`` is ``lakehouse``."""

from . import main

main()
