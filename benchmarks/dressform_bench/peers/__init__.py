"""The same pictures by others and by us: ``python -m dressform_bench.peers``."""
