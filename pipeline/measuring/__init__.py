"""Measures networks: how often they are right, how close to the teacher they are, and what they cost."""
