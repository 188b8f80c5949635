"""Images on storage to batches on the device: shards, decoding, and the stream."""
