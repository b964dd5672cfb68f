"""What a log amounts to: the fold of its events, and queries."""
