"""Batch norm with the addition and the ReLU that follow it, in one pass over memory on a GPU."""
