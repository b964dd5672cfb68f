"""Tests of `trainer/training`."""
