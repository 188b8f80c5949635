"""What a training reads: readers of folders and shards, the batches of each kind of run, and the noise in them."""
