"""Batches from prepared shards: sources, schedule, one reader on tf.data, one in memory."""
