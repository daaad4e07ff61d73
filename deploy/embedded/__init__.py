"""A real Kafka and a real Elasticsearch as local processes, from package registries alone."""
