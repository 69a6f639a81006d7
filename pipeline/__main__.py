"""Runs the command `pipeline` as `python -m pipeline`, which is how `torchrun` begins it."""

from pipeline.cli import main

if __name__ == "__main__":
    main(prog_name="pipeline")
