"""Grafana's dashboards, edited here: ``python -m pages`` in ``docker/monitoring`` writes ``dashboards/*.json``.

A unit test says when the two differ.
"""
