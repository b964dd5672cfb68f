"""Commands to a live run, and the socket that carries them."""
