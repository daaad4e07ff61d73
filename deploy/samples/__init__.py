"""Sample commands: users that live, and records that no worker can read."""
