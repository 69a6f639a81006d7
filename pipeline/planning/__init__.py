"""What an experiment would do, what is wrong with it and what it costs, before anything runs."""
