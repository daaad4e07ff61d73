"""Run `cqrs` as `python -m deploy.cli`."""

from deploy.cli.main import main

if __name__ == "__main__":  # a helper process imports it as well
    main()
