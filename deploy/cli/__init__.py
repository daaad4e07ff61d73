"""The commands of the `cqrs` command line, one module per group of commands."""
