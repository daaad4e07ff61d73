"""Kafka: clients, topics, transactions, and the records that are read and written."""
