"""State of aggregates: snapshots in one store per partition, restored from the changelog."""
