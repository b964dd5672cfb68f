"""Models for other programs, each announced only after it has agreed with the trained one on real images."""
