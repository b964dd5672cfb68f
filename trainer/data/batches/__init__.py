"""Batches of a data set, resident or decoded by worker processes."""
