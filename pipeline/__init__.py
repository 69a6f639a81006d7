"""Decant: run the teacher once, pour as many students as you like.

Rooms, from left to right; a room imports only rooms to its left (`tests/test_imports.py`):
errors, config < data < views < signals < models < store < objectives, evaluation < training < stages < cli.
"""
