"""The run: its events, its commands, its view and its directory. Torch-free, shared by trainer and dashboard."""
