"""Deviation of the trainer from the reference after the same steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.reference.training_cases import Case
from tests.reference.training_sides import State, Trained
from tests.reference.training_step import Reference
from trainer.model.numerics import Convolution, Numerics, Precision

MARGIN = 2e-6
"""Below this distance from 0, rounding may switch a ReLU in one implementation only; both gradients are then correct."""
BETWEEN_PIXELS = 5.0
"""Factor by which images sampled between pixels are less exact: a coordinate in fp32 is exact to about 1e-6 of a pixel."""
SPREAD = 12.0
"""Above this, batch norm amplifies rounding too much (half-and-half mixes of images look alike)."""
TOLERANCE = {"native": 1e-5, "products": 1e-4}
"""Relative error of a step in fp32 with rounding errors of 6e-8: they add up over about forty operations, and more in sums of
products that cancel (Winograd's transforms)."""
MUON = 10 * 3.4445**3
"""Factor by which Muon amplifies rounding: three iterations amplify directions that are weak in the gradient, and kernels with
small gradients are rotated as far as others."""
BITS = {"fp32": None, "bf16": 8, "fp16": 11}
"""Significant bits of the numbers between two layers, by precision."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """Distance of the trainer from the reference.

    Attributes:
        change: Norm of the difference of all weights, relative to the norm of their change.
        statistics: The same for the running statistics.
        momentum: Norm of the difference of all momenta, relative to the norm of the momenta.
        average: As `change`, for the moving average of weights and statistics.
    """

    change: float
    statistics: float
    momentum: float
    average: float

    @classmethod
    def of(cls, before: State, after: State, reference: Reference, *, steps: int = 1) -> Deviation:
        """Compare a state with a reference that has taken the same steps from the state `before`."""
        momenta = {name: reference.momenta[name] for name in after.momenta}
        zeros = {name: torch.zeros_like(value) for name, value in momenta.items()}
        rounding = 2**-25 * math.sqrt(steps)  # numbers are stored in fp32 after each step
        return cls(
            change=_relative(after.weights, reference.weights, before.weights, rounding),
            statistics=_relative(after.statistics, reference.statistics, before.statistics, rounding),
            momentum=_relative(after.momenta, momenta, zeros, rounding),
            average=_relative(after.average, reference.average, before.average, rounding),
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Steps taken by trainer and reference.

    Attributes:
        deviation: Distance of the states after them.
        loss: Difference of the last mean loss.
        top1: Difference of the last training accuracy.
        muon: Whether kernels are trained by Muon.
        skipped: Whether the trainer skipped the last update.
        decided: Whether rounding cannot switch a ReLU or max-pool.
    """

    deviation: Deviation
    loss: float
    top1: float
    steps: int
    muon: bool
    skipped: bool
    decided: bool

    def faults(self, tolerance: float) -> list[str]:
        """Quantities that deviate by more than the tolerance of one step; each step adds that and amplifies earlier errors."""
        limit = tolerance * self.steps**2
        weight_limit = min(limit * MUON, 0.3) if self.muon else limit
        deviations = [
            ("change", self.deviation.change, weight_limit),
            ("average", self.deviation.average, weight_limit),
            ("statistics", self.deviation.statistics, limit),
            ("momentum", self.deviation.momentum, limit),
            ("loss", self.loss, limit),
            ("top1", self.top1, 0.5 if tolerance > 1e-3 else 1e-6),  # coarse rounding may decide between two classes
            ("skipped", float(self.skipped), 0.5),
        ]
        return [f"{name}: {value:.2g}, allowed {limit:.2g}" for name, value, limit in deviations if not value < limit]


def compared(case: Case, *, precision: Precision = "fp32", convolution: Convolution = "native") -> Comparison:
    """Take the steps of a case with trainer and reference."""
    config, pixels, labels = case.config(), case.pixels(), case.labels()
    numerics = Numerics(precision=precision, channels_last=case.channels_last, convolution=convolution)
    trained = Trained(config, pixels, labels, numerics, case.layers)
    before = trained.state()
    reference = before.reference(config, pixels, labels, step=case.first_step, bits=BITS[precision])
    for index, frozen in enumerate(case.frozen):
        reference.take_step(frozen=frozen)
        trained.take_step(case.first_step + index, frozen=frozen)
    loss, top1, skipped = trained.metrics.tolist()
    margin = MARGIN if config.data.resized_crop is None else MARGIN * BETWEEN_PIXELS
    return Comparison(
        deviation=Deviation.of(before, trained.state(), reference, steps=len(case.frozen)),
        loss=abs(loss - reference.loss),
        top1=abs(top1 - reference.top1),
        steps=len(case.frozen),
        muon=config.optim.name == "muon",
        skipped=bool(skipped),
        decided=reference.margin > margin * len(case.frozen) and reference.spread < SPREAD,
    )


def _relative(
    actual: dict[str, Tensor], expected: dict[str, Tensor], before: dict[str, Tensor], rounding: float
) -> float:
    """Distance of two states relative to the change of the second, without the rounding of storing it in fp32."""
    assert actual.keys() == expected.keys()
    if not actual:
        return 0.0
    end, target, start = (torch.cat([state[name].flatten() for name in actual]) for state in (actual, expected, before))
    distance = float((end - target).norm()) - rounding * float(target.norm())
    return max(distance, 0.0) / max(float((target - start).norm()), 1e-30)
