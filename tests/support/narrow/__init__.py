"""A narrow network for the tests, in this process and in those that it starts."""
