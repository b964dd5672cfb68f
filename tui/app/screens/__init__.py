"""Screens: the dashboard, the list of runs, and the dialogs over them."""

LIST_OF_RUNS = "list-of-runs"
MESSAGES = "messages"
"""Ids of the screens that cover a dashboard entirely, kept here for use without importing them before the first frame."""
