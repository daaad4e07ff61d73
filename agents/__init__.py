"""What reacts to messages: the agents and the handlers behind the buses."""
