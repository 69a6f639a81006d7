"""Shows what was measured: tables, plots and the report of an experiment."""
