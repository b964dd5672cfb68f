"""Trackers that receive a run's log: TensorBoard, Weights & Biases, MLflow, trackio.

`events.jsonl` stays the source of truth and is also the queue: a separate process reads it as it grows (`follower`) and turns its
events into calls of a `Tracker` (`feed`). So the training process never imports a tracker, waits for it or fails with it; what a
dead one has missed is passed on later by `r18-tui sync`.
"""
