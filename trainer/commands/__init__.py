"""One file a command; commands do not import each other."""
