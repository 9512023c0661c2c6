"""Benchmarks: `python -m tests.bench`, each figure against a reference taken in the same run."""
