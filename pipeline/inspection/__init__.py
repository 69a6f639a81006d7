"""Shows what a cache is, and whether it can be trusted: its files, its views, and the outputs of its teacher today."""
