"""How far the trainer is from the reference after the same steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.reference.training_cases import Case
from tests.reference.training_sides import State, Trained
from tests.reference.training_step import Reference
from trainer.model.numerics import Numerics

MARGIN = 2e-6
"""A ReLU whose input is nearer to 0 may open on one side alone, by rounding. The gradients then differ, and neither is wrong."""
BETWEEN_PIXELS = 5.0
"""Times by which images that are read between pixels are less exact: a place in fp32 is exact to some 1e-6 of a pixel."""
SPREAD = 12.0
"""Above it a batch norm makes more of rounding than its inputs hold (images that are mixed by halves look alike)."""
TOLERANCE = {"native": 1e-5, "products": 1e-4}
"""Relative error of a step in fp32, whose numbers have 6e-8: it adds up over some forty operations, and more in sums of products
that cancel (Winograd's transforms)."""
MUON = 10 * 3.4445**3
"""Times by which Muon enlarges rounding: three rounds of its iteration enlarge a direction that the gradient hardly shows, and
kernels whose gradients are small beside those of others are turned as far as they are."""
BITS = {"fp32": None, "bf16": 8, "fp16": 11}
"""Significant bits of the numbers between two layers, by precision."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """Distance of the trainer from the reference.

    Attributes:
        change: Norm of the difference of all weights, over the norm of their change.
        statistics: The same of the running statistics.
        momentum: Norm of the difference of all momenta, over the norm of the momenta.
        average: As `change`, of the moving average of weights and statistics.
    """

    change: float
    statistics: float
    momentum: float
    average: float

    @classmethod
    def of(cls, before: State, after: State, theirs: Reference, *, steps: int = 1) -> Deviation:
        """Compare a state with a reference that has taken the same steps from the state before."""
        momenta = {name: theirs.momenta[name] for name in after.momenta}
        zeros = {name: torch.zeros_like(value) for name, value in momenta.items()}
        rounding = 2**-25 * math.sqrt(steps)  # of numbers that are stored in fp32 after each step
        return cls(
            change=_relative(after.weights, theirs.weights, before.weights, rounding),
            statistics=_relative(after.statistics, theirs.statistics, before.statistics, rounding),
            momentum=_relative(after.momenta, momenta, zeros, rounding),
            average=_relative(after.average, theirs.average, before.average, rounding),
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Steps taken on both sides.

    Attributes:
        deviation: Distance of the states after them.
        loss: Difference of the newest mean loss.
        top1: Difference of the newest share of recognised images.
        steps: Number of steps.
        muon: Whether kernels are trained by Muon.
        skipped: Whether the trainer left the newest update out.
        decided: Whether rounding is too small to change the result by more than itself.
    """

    deviation: Deviation
    loss: float
    top1: float
    steps: int
    muon: bool
    skipped: bool
    decided: bool

    def faults(self, tolerance: float) -> list[str]:
        """What is further from the reference than a tolerance, and how far.

        Args:
            tolerance: Tolerance of one step. Each of several steps adds as much, and enlarges what the steps before it added.
        """
        limit = tolerance * self.steps**2
        of_weights = min(limit * MUON, 0.3) if self.muon else limit
        found = [
            ("change", self.deviation.change, of_weights),
            ("average", self.deviation.average, of_weights),
            ("statistics", self.deviation.statistics, limit),
            ("momentum", self.deviation.momentum, limit),
            ("loss", self.loss, limit),
            ("top1", self.top1, 0.5 if tolerance > 1e-3 else 1e-6),  # coarse rounding may decide between two classes
            ("skipped", float(self.skipped), 0.5),
        ]
        return [f"{name}: {value:.2g}, allowed {limit:.2g}" for name, value, limit in found if not value < limit]


def compared(case: Case, *, precision: str = "fp32", convolution: str = "native") -> Comparison:
    """Take the steps of a case on both sides."""
    config, pixels, labels = case.config(), case.pixels(), case.labels()
    numerics = Numerics(precision=precision, channels_last=case.channels_last, convolution=convolution)
    ours = Trained(config, pixels, labels, numerics, case.layers)
    before = ours.state()
    theirs = before.reference(config, pixels, labels, step=case.first_step, bits=BITS[precision])
    for index, frozen in enumerate(case.frozen):
        theirs.take_step(frozen=frozen)
        ours.take_step(case.first_step + index, frozen=frozen)
    loss, top1, skipped = ours.metrics.tolist()
    margin = MARGIN if config.data.resized_crop is None else MARGIN * BETWEEN_PIXELS
    return Comparison(
        deviation=Deviation.of(before, ours.state(), theirs, steps=len(case.frozen)),
        loss=abs(loss - theirs.loss),
        top1=abs(top1 - theirs.top1),
        steps=len(case.frozen),
        muon=config.optim.name == "muon",
        skipped=bool(skipped),
        decided=theirs.margin > margin * len(case.frozen) and theirs.spread < SPREAD,
    )


def _relative(ours: dict[str, Tensor], theirs: dict[str, Tensor], before: dict[str, Tensor], rounding: float) -> float:
    """Distance of two states over the change of the second, less what storing it in fp32 may cost."""
    assert ours.keys() == theirs.keys()
    if not ours:
        return 0.0
    mine, other, start = (torch.cat([state[name].flatten() for name in ours]) for state in (ours, theirs, before))
    distance = float((mine - other).norm()) - rounding * float(other.norm())
    return max(distance, 0.0) / max(float((other - start).norm()), 1e-30)
