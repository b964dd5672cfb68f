"""Tests of `trainer/config`."""
