"""Helps people begin: looks at their images and their machine, writes a first configuration, runs a demonstration."""
