"""Reference implementations in plain PyTorch and arithmetic, and comparisons of the program with them."""
