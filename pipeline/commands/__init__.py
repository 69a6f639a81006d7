"""Runs the commands of `pipeline` that are no stage; `pipeline.cli` is the entry point."""
