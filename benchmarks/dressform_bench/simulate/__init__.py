"""Fleets of servers as a discrete-event simulation: ``python -m dressform_bench.simulate``."""
