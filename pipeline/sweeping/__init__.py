"""Chooses the constants of an objective set on the holdout: tries, each an ordinary student, and what they cost."""
