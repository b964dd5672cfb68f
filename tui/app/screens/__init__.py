"""Screens: the dashboard, the list of runs, and the dialogs over them."""

LIST_OF_RUNS = "list-of-runs"  # ids of screens, here so that the screens need not be imported before the first frame
MESSAGES = "messages"
