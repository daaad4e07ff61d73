"""Tests, the fault suite, and what both stand on."""
