"""Commands with a screen."""
