"""Tests of `trainer/session`."""
