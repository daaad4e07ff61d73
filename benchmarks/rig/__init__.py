"""What all benchmarks use.

- `runner.py`: `Benchmark`, `Contestant`, and the rounds; `target.py`: what a benchmark should show.
- `result.py`: the figures and their file; `machine.py`: what they were measured on.
- `process.py`: a contestant that is a process.
- `backlog.py`: new topics, the same commands for all; `sample_users.py`: registrations and events;
  `changelog_history.py`: a long history of states.
- `indices.py`: new indices; `searched_users.py`: an index to search, and the time of searches.
"""
