"""What the benchmarks share: environments, processes, texts, vectors, the machine."""
