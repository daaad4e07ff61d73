"""The domain: commands, events, the user, views and queries. Pure: no input, no output."""
