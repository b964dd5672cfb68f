"""The state of a run, folded from the events of its log, and queries about it."""
