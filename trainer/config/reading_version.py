"""The version of the rules by which folders and pictures are read: a setting of each run, and part of exported models."""

READING = 2
"""Newest version of the rules. A run keeps the one that it began with (`data.reading`), and an exported model keeps the rules for
pixels: a resume and a prediction see what training saw. Runs that name none have version 1."""
