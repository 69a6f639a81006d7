"""The parts of `benchmarks/gpu.py`: each answers one question of `parts.PARTS`."""
