"""Trackers that receive a run's log: TensorBoard, Weights & Biases, MLflow, trackio.

`events.jsonl` is also the queue: a separate process reads it as it grows (`relay`) and turns events into calls of a
`Tracker` (`feed`). So the training process never imports a tracker, waits for it or fails with it; `r18-tui sync` later
passes on what a tracker has missed.
"""
