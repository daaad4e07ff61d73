"""Envelope encryption of personal data: a data key per aggregate, wrapped by a master key."""
