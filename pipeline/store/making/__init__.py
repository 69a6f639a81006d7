"""Makes teacher caches: the teacher computes unit by unit, and its outputs are written durably."""
