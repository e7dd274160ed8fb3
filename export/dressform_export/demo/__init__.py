"""The demonstration: ``python -m dressform_export.demo`` exports, serves and asks for pictures, all on this machine."""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""The pipeline that is shipped: trained here on drawn people (its card is ``README.md`` in the folder)."""
