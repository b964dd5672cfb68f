"""Trackers that receive a run. A separate process reads `events.jsonl` as it grows (`relay`) and calls a `Tracker` (`feed`).

The training process never imports a tracker, waits for it or fails with it; `r18-tui sync` passes on what one has missed.
"""
