"""Dressform's benchmarks. ``locustfile.py`` puts load on a running server."""
