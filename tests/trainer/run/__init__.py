"""Tests of `trainer/run`."""
