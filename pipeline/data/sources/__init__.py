"""Holds the sources that data sets are packed from: one kind per file, named in `data.source.name`."""
