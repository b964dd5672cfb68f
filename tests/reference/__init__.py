"""Plain PyTorch and arithmetic that the program's numbers are held against."""
