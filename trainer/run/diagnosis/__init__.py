"""Rules that find what is wrong with a run: pure functions of the folded run, silent unless the evidence is beyond chance."""
