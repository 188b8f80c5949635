"""What a training reads: readers of folders and shards, and the batches of each kind of run."""
