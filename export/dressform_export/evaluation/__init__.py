"""Evaluation: how good the pictures of an export are, by the metrics of the field and on the field's data sets.

``dressform-export evaluate`` is the command (`command`). Needs the extra ``evaluate``.
"""
