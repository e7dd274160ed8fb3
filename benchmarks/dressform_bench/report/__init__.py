"""One report from the records of all benchmarks: ``python -m dressform_bench.report``."""
