"""A real Kafka and a real Elasticsearch as local processes, from package registries alone.

The jars are Maven artifacts, the Java runtime is a Python package: neither a container engine nor
an installed Java is needed.

Start reading at `stack.py`: `EmbeddedStack` is what `cqrs up`, the tests and the benchmarks use.
`cluster.py` is the same for three Kafka nodes. Both do this:

1. `ports.py` chooses ports; `preconditions.py` checks memory and disk; `jars.py` downloads what is
   missing (`lockfile.py`: what is pinned, `maven.py`: the network).
2. `kafka.py` and `elasticsearch.py` write the servers' configuration.
3. `processes.py` starts each server in a process that runs `jvm.py`, which calls `start_server` of
   `kafka.py` or `elasticsearch.py`.

`status.py` and `start_progress.py` are what people see of it. `shared_files.py` has atomic writes
and file locks, `temporary_homes.py` the folders of stacks that end with their owner.
"""
