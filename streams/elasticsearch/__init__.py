"""What is written to Elasticsearch and asked of it: connection, index, bulk writes, substrings."""
