"""The life of a run: training thread, saves, live edits and end."""
