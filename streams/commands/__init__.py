"""Deciding commands: from a chunk of the command topic to one transaction; and sending them."""
