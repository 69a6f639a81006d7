"""Makes a teacher cache: the teacher computes unit by unit, and what it computed is written durably."""
