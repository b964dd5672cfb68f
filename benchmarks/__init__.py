"""Scripts that print the figures in README.md and RESULTS.md."""
