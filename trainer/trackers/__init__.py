"""Trackers that a run's log is passed on to: TensorBoard, Weights & Biases, MLflow, trackio.

`events.jsonl` stays the truth, and is the queue as well: a process of its own reads it as it grows (`follower`) and calls a
`Tracker` by its events (`feed`). So nothing of a tracker is ever imported, waited for or failed upon by the process that trains;
what a dead one has missed, `r18-tui sync` passes on later.
"""
