"""What is written to Kafka and read from it: clients, records, topics, transactions."""
