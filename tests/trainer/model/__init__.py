"""Tests of `trainer/model`."""
