"""What ours is measured against, in Python. `rules.py` are the decisions that these share."""
