"""The scenarios, one kind of fault per module."""
