"""Tests of `tui/state`."""
