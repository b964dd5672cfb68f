"""Tests of `trainer/host`."""
