"""Metrics, mistakes, reports and classifiers."""
