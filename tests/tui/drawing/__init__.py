"""Tests of `tui/drawing`."""
