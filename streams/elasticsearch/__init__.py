"""Access to Elasticsearch: connection, index definition, bulk writes, substring search."""
