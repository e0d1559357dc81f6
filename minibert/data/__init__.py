"""From files to batches: rows, labelled examples, splits, token ids, datasets."""
