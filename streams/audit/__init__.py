"""Checks a deployment from its topics and indices alone: its invariants, and its erasures."""
