"""`cqrs bench`: how fast it is, beside its peers, on real servers; figures, never asserted on.

A benchmark (`benchmark.py`) has contestants, which are run in turn, round after round, so that what
else goes on in the machine hits all of them. `result.py` is what is kept, `report.py` what is
shown. `peers/` and `java/` hold the peers.
"""
