"""What every benchmark stands on: runs, results, processes, sample data."""
