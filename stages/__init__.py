"""Runs the stages of a `dvc.yaml`, one file for each: it reads its sections, calls the rooms, publishes an artifact."""
