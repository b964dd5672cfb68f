"""Trackers that receive a run's log, which a process of their own reads (`relay`) and turns into calls of them (`feed`).

The training process never imports a tracker, waits for it or fails with it; `r18-tui sync` passes on what one has missed.
"""
