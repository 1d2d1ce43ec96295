"""Benchmarks against other mail servers: `python -m bench`.  bench/README.md is the map."""
