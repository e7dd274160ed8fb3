"""The demonstration: ``python -m dressform_export.demo`` exports, serves and asks for pictures, all on this machine."""
