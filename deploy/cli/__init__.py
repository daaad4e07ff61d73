"""The `cqrs` command line: one module per command, or per group of related commands.

`main.py` holds the table of all commands. It imports a command's module only to run that command.

- `stack.py`: `up`, `down`, `status`, `logs`
- `topics.py`, `worker.py`: what has to exist and to run before anything else
- `send.py`: one command and its outcome, or a file (`send_file.py`, `line_reader.py`)
- `queries.py`: `get`, `search`, `active`; `registrations.py`
- `tail.py`, `views.py`, `verify.py`, `erase.py`, `keys.py`: for operators
- `generate.py`, `demo.py`: to try it out
- `terminal.py`: what they share: examples in `--help`, a progress bar; `standard_streams.py`: pipes
  that nobody reads

`cqrs bench` is in `benchmarks/cli.py` and `cqrs faults` in `tests/faults/cli.py`.

Start reading at `main.py`, then `send.py`.
"""
