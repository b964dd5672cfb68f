"""Tests of `trainer/data`."""
