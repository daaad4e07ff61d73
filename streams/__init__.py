"""The machinery that agents stand on. It names no aggregate."""
