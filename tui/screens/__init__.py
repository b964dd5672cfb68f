"""Screens: the dashboard and the dialogs over it."""
