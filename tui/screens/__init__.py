"""Screens: the dashboard, the list of runs, and the dialogs over them."""

LIST_OF_RUNS = "list-of-runs"
"""The id of the list's screen, for who must not import it before the first frame."""
