"""The terminal: driver, launcher, modes, job control."""
