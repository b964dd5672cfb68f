"""Image folders: layout, scan, decoding."""
