"""A data set on disk to TFDS shards, checked on the way."""
