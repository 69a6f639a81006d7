"""Finds out, before anything runs, what an experiment would do, what is wrong with it and what it costs."""
