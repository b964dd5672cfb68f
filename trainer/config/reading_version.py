"""Version of the rules for reading folders and pictures: a setting of each run, and part of exported models."""

READING = 2
"""Newest version of the rules. A run keeps the version that it began with (`data.reading`; 1 where it has none), and an
exported model keeps the rules for pixels, so that a resume and a prediction see what training saw."""
