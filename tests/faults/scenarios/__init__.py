"""What can go wrong, one kind of fault per module."""
