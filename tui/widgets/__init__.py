"""Panes: rows of text from a `DisplayState`, of which only changes are sent. numpy is imported only to draw with it."""
