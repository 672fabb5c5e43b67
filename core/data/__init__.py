"""From files and data sets to batches: sources -> documents and pairs -> prepared token files -> batches."""
