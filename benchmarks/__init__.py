"""Scripts that print the figures which README and RESULTS.md quote."""
