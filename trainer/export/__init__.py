"""Exports models for other programs; each is announced only after it agreed with the trained one on real images."""
