"""Envelope encryption of personal data.

Each aggregate has a data key of its own, which encrypts its personal data. Data keys are stored
wrapped: encrypted with the deployment's master key. To erase an aggregate, its data key is
destroyed. Then nobody can read its personal data, wherever copies of it are (crypto-shredding).
"""
