"""Writes the `dvc.yaml` of an experiment: its stages, what they depend on, and what other files make already."""
