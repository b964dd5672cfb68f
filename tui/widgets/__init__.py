"""Panes. Each draws rows of text from a `DisplayState` and sends only what has changed."""
