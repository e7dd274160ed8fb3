"""The dashboards of ``docker/monitoring``, drawn from a real server's data: ``dressform bench dashboards``."""
