"""`python -m deploy.cli` is `cqrs`."""

from deploy.cli.main import main

main()
