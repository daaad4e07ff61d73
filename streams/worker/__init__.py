"""A worker: the Faust app, chunks of records, and a driver for each partition it owns."""
