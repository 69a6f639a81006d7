"""Opens an experiment: its configuration, and its data, caches, networks and runs."""
