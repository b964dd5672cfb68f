"""Panes. Each draws rows of text from a `Scene` and sends only what has changed."""
