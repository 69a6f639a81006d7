"""What a published cache is checked against: its files, its views, and what the teacher computes today."""
