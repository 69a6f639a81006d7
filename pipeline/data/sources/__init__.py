"""What packed data sets are made from: one kind of source per file, named in `data.source.name`."""
