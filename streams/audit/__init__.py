"""Checking a deployment from its topics and indices alone: invariants, and what erasing left."""
