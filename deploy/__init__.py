"""Where it runs: the embedded servers, the command line, the topics and indices."""
