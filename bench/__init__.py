"""Benchmarks: each writes a JSON file with machine, versions and settings to bench/results/."""
