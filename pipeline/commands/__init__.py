"""Commands of `pipeline` and the options that they share; `pipeline.cli` is the entry point."""
