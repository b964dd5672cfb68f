"""The run's log: events, their lines, writer and reader."""
