"""Holds the operations that views are made of: one file each, named as in the configuration."""
