"""The machine: files, signals, memory, threads, GPU queries. Torch-free."""
