"""Jobs on whole shard sets: score, filter, edit."""
