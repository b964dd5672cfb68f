"""Augmentation on the device, drawn by integer hashes."""
