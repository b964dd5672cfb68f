"""The result of a rule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A problem that the user should look at."""

    kind: str  # name of the rule
    level: str  # `error`, `warning` or `info`
    text: str  # the problem
    evidence: str  # the numbers behind it
    remedy: str  # what to do, with the key for it if there is one
