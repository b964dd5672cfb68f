"""A run's life: thread, saves, edits, end."""
