"""Everything that runs the system: local servers, the command line, worker processes.

- `cli/`: the `cqrs` command line; `cli/main.py` lists every command with its module.
- `environment.py`: where the servers are, for commands and for the processes that they start.
- `supervisor.py`: starts worker processes and keeps them running (`cqrs worker`).
- `scraping.py`: where the metrics of workers are found; `top/`: what `cqrs top` shows of them.
- `embedded/`: a real Kafka and a real Elasticsearch as local processes (`cqrs up`).
- `ephemeral.py`: new namespaces, and workers that last for a block, for tests and benchmarks;
  `waiting.py`: waits with a deadline.
- `samples/`: generated commands, and records that no worker can decode.
- `demo.py`: what `cqrs demo` sends, measures and checks.

Start reading at `cli/main.py`, then follow one command, for example `cli/worker.py`.
"""
