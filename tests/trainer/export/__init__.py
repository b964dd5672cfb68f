"""Tests of `trainer/export`."""
