"""Tests of `trainer/trackers`."""
