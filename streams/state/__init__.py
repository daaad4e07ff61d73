"""The state of aggregates: snapshots in a store per partition, restored from a changelog."""
