"""`cqrs bench`: how fast the system is on real servers, compared with its peers.

A benchmark runs its contestants in turn, round after round, so that other load on the machine
affects all of them. No test asserts on a figure.

- `catalogue.py`: the list of benchmarks; each is a module beside it, such as `deciding.py`.
- `rig/`: what all of them use: `runner.py` (rounds), `result.py` (what is kept), topics, processes,
  sample data.
- `peers/`: the programs that are measured beside ours; `peers/java/` is Kafka Streams.
- `cli.py`, `report.py`, `plot.py`: the command, its tables and pages, its pictures.
- `results/`: the kept results, in a directory for each page of `docs` that is generated from them.

Start reading at `rig/runner.py`, then `deciding.py`.
"""
