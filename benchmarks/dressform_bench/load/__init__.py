"""Users who ask, wait, look and ask again (Locust): what load one server holds."""
