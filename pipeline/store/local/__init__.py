"""Keeps stores in folders: made beside their place, published by renaming, and mapped into memory to be read."""
