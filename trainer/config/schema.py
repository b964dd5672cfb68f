"""The whole configuration, typed and validated.

Every group is a frozen model; an unknown key, a wrong type and a value out of range are errors. The docstring under a
field gives its unit and what `auto` or None means; `docs/configuration.md` is generated from these docstrings.
A key exists only when the program acts on it.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from trainer.config.data_config import DataConfig
from trainer.config.group import Auto, Fraction, Group
from trainer.config.trackers import TrackerName
from trainer.host.stop_signals import WarningSignal

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunConfig(Group):
    """The run's name, device and numerics."""

    name: str = "run"
    """Name of the run's directory under the runs folder; letters, digits, `.`, `_` and `-`."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of every random draw: weights, order, augmentation, dropout."""
    device: str = "auto"
    """`auto`, `cpu`, `mps`, `cuda` or `cuda:N`. `auto` never falls back to the CPU on a machine that has a GPU."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """`fp32` has all its digits everywhere; `tf32` is fp32 whose products have 10 bits of mantissa, on GPUs from Ampere on.
    `bf16` is autocast with fp32 weights, `fp16` the same with a scaled loss: a step that overflows is skipped and the scale
    halved. `auto` times a few real steps at the start and uses the faster: of `tf32` and `bf16` on GPUs from Ampere on, of `fp32`
    and `fp16` on older ones, of `fp32` and `bf16` on a CPU."""
    channels_last: bool | Auto = "auto"
    """Memory format of images and weights; `auto` is timed together with `precision`."""
    convolution: Literal["auto", "native", "products"] = "auto"
    """How kernels are computed in training: by PyTorch's own convolution everywhere, or by matrix `products` on small feature
    maps and where the stride is 2. The results differ only in rounding, about three times coarser in bf16 in the last stages
    (Winograd's algorithm). `auto` times both on a CPU with channels_last, where nothing is compiled."""
    batch_norm: Literal["auto", "native", "fused"] = "auto"
    """How batch norm is computed in training: by PyTorch's kernels, or on an NVIDIA GPU with channels_last `fused` with the
    addition and the ReLU that follow it, which reads and writes memory less often. `auto` times both on such a GPU."""
    compile: Literal["none", "default", "max-autotune"] = "none"
    """Whether `torch.compile` rewrites the network for training, and how hard it looks for fast kernels: minutes at the start,
    which only long runs on a GPU win back. On a CPU it needs a C++ compiler, and was slower where it was measured."""
    cuda_graph: bool = True
    """On a CUDA device: capture a step once and replay it, so that small steps do not wait for the CPU. A step that cannot be
    captured is computed kernel by kernel; the log says why."""
    sinks: list[TrackerName] = Field(default_factory=list)
    """Trackers that also receive the run, each from its own process: `tensorboard`, `wandb`, `mlflow` or `trackio`."""
    stop_on_signals: list[WarningSignal] = Field(["SIGXCPU", "SIGPWR", "SIGALRM", "SIGVTALRM"])
    """Warning signals that save and stop the run; its exit code is 128 + the signal's number. Of `SIGUSR1`, `SIGUSR2` (as Slurm
    sends before the time limit), `SIGXCPU`, `SIGPWR`, `SIGALRM` and `SIGVTALRM`, those not listed save and training continues.
    SIGTERM, SIGINT and SIGHUP always stop."""
    deterministic: bool = False
    """Use only deterministic operations, so that a run that was stopped and resumed ends bit for bit like an uninterrupted one
    (same machine, same torch). An operation without a deterministic form on the device stops the run with an error naming it."""

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("expected letters, digits, `.`, `_` or `-` (at most 100, starting with a letter or digit)")
        return value

    @field_validator("sinks")
    @classmethod
    def _no_duplicates(cls, value: list[TrackerName]) -> list[TrackerName]:
        if len(set(value)) < len(value):
            raise ValueError("each tracker can be named only once")
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            raise ValueError("expected auto, cpu, mps, cuda or cuda:N")
        return value

    @model_validator(mode="after")
    def _compile_needs_native_parts(self) -> RunConfig:
        if self.compile != "none" and self.convolution == "products":
            raise ValueError("compile needs PyTorch's own convolutions: remove convolution=products")
        if self.compile != "none" and self.batch_norm == "fused":
            raise ValueError("compile fuses batch norm by itself: remove batch_norm=fused")
        return self


class ModelConfig(Group):
    """ResNet-18 and its initial weights."""

    stem: Literal["cifar", "cifar-maxpool", "imagenet"] = "cifar"
    """`cifar`: 3x3 stride 1, no max-pool; `cifar-maxpool`: 3x3 stride 1, max-pool kept (4x cheaper); `imagenet`: 7x7
    stride 2 and max-pool."""
    num_classes: int | Auto = "auto"
    """`auto` takes the data's; a number must agree with the data."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of features dropped before the classifier."""
    init_from: str | None = None
    """`imagenet`, the path of a checkpoint or state dict, or a run; None starts from random weights."""
    freeze: Literal["none", "layer1", "layer2", "layer3", "backbone"] = "none"
    """Frozen stages, batch-norm statistics included: `layer2` is the stem to layer2; `backbone` trains the classifier
    alone."""
    unfreeze_after: int | None = Field(None, ge=1)
    """Epochs after which frozen stages are unfrozen; None never (except by key)."""
    unfreeze_every: int = Field(0, ge=0)
    """Epochs from one stage to the next, from the classifier backwards; 0 trains all of them at once."""
    cache_features: bool = False
    """While the whole backbone is frozen: its features of each training image are computed once, without augmentation, and the
    classifier is trained on them, which takes seconds even on a CPU."""


class TrainConfig(Group):
    """Length of the training, and the loss."""

    epochs: int = Field(12, ge=1, le=100_000)
    """Passes over the training images."""
    grad_accum_steps: int = Field(1, ge=1, le=4096)
    """Micro-batches per step; `data.batch_size` must be divisible by it."""
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the target spread over all classes."""
    max_grad_norm: float | None = Field(None, gt=0.0)
    """Gradients are scaled down to this L2 norm; None turns it off."""
    ema_decay: float | None = Field(None, gt=0.0, lt=1.0)
    """Decay per step of a moving average of the weights, which is then evaluated and exported; None for no average."""
    early_stop_epochs: int | None = Field(None, ge=1)
    """Epochs without improvement of the value that `eval.best_by` names, after which the run ends; None never."""


class OptimConfig(Group):
    """The optimizer."""

    name: Literal["sgd", "muon"] = "sgd"
    """`sgd` is stochastic gradient descent with momentum. `muon` turns the kernels of the convolutions by orthogonalised updates,
    which learns more from few epochs and costs as much in every step whatever the batch; the rest is trained by SGD."""
    lr: float = Field(0.05, gt=0.0, le=1000.0)
    """Peak learning rate; with `muon`, of all weights except kernels."""
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    """Share of the previous update that is kept."""
    kernel_lr: float = Field(0.12, gt=0.0, le=1.0)
    """`muon` only: length of a kernel's update in one step at the peak rate, as a share of the kernel's length."""
    kernel_momentum: float = Field(0.6, gt=0.0, lt=1.0)
    """`muon` only: share of a kernel's previous updates that is kept."""
    nesterov: bool = True
    """Nesterov's momentum; needs momentum above 0."""
    weight_decay: float = Field(5e-4, ge=0.0, le=1.0)
    """L2 penalty added to the gradient."""
    decay_bn_bias: bool = True
    """Whether batch-norm parameters and biases decay too."""
    layer_decay: float = Field(1.0, gt=0.0, le=1.0)
    """Factor of the rate from one stage to the one before, from the classifier (1) backwards: with 0.3 layer4 is trained at 0.3
    of the rate, layer3 at 0.09."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> OptimConfig:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: true needs momentum above 0; set nesterov: false")
        return self


class ScheduleConfig(Group):
    """The learning rate over the run, as factors of `optim.lr`."""

    name: Literal["linear", "cosine", "step", "constant"] = "linear"
    """Shape after the warm-up."""
    warmup: Fraction = 0.2
    """Share of the run that rises linearly from `warmup_start` to 1."""
    warmup_start: Fraction = 0.2
    """Factor at the first step."""
    end: Fraction = 0.0
    """Factor at the end (linear and cosine)."""
    unit: Literal["step", "epoch"] = "step"
    """Whether the rate changes at every step or only between epochs."""
    milestones: list[int] = Field(default_factory=list)
    """`step` only: epochs at which the rate is multiplied by `gamma`, rising."""
    gamma: float = Field(0.1, gt=0.0, le=1.0)
    """`step` only: the multiplier."""

    @model_validator(mode="after")
    def _milestones_belong_to_step(self) -> ScheduleConfig:
        if self.name == "step" and not self.milestones:
            raise ValueError("name: step needs milestones, such as [60, 120, 160]")
        if self.name != "step" and self.milestones:
            raise ValueError(f"milestones belong to name: step, not to {self.name}")
        if self.milestones != sorted(set(self.milestones)) or any(epoch < 1 for epoch in self.milestones):
            raise ValueError(f"milestones must be rising epochs from 1, found {self.milestones}")
        return self


class EvalConfig(Group):
    """Evaluation on held-out images."""

    every_epochs: int = Field(1, ge=1)
    """Epochs between evaluations; the last epoch is always evaluated."""
    batch_size: int = Field(1000, ge=1, le=65536)
    """Images per forward pass; on a CPU no more than take about a second, since a stop is noticed between two of them."""
    best_by: Literal["accuracy", "loss"] = "accuracy"
    """Value that chooses the best checkpoint and must improve for `train.early_stop_epochs`: `loss` for few images, whose
    accuracy moves in large steps. Of equal accuracies the one with the lower loss is better."""
    tta: Literal["none", "flip"] = "none"
    """`flip` also reports the accuracy of the mean logits of an image and its mirror image, as `accuracy_tta`."""


class CheckpointConfig(Group):
    """Saving of checkpoints."""

    every_s: float = Field(60.0, gt=0.0)
    """Seconds between saves."""
    every_epoch: bool = True
    """Also at each epoch's end, unless the last save is younger than 10 s."""
    keep: int = Field(2, ge=2, le=1000)
    """Number of the newest that are kept, besides the best and all that were saved by key."""


class ExportConfig(Group):
    """Options of an export. `model.onnx` is always made, other files on request; none is written that fails its gate."""

    opset: int | Auto = "auto"
    """ONNX operator set; `auto` takes the exporter's own choice."""
    embed_preprocess: bool = False
    """Put the preprocessing into the files: they take uint8 pixels (batch x size x size x 3) and return probabilities."""
    int8: bool = False
    """Also `model-int8.onnx`, a quarter of the size and faster on CPUs; it may cost 1 point of accuracy."""
    fp16: bool = False
    """Also `model-fp16.onnx`, for GPU runtimes; it may cost 0.1 point of accuracy."""
    pt2: bool = False
    """Also `model.pt2`, for PyTorch without this program."""
    safetensors: bool = False
    """Also `model.safetensors`, the weights alone by torchvision's names."""

    @field_validator("opset")
    @classmethod
    def _opset_range(cls, value: int | Auto) -> int | Auto:
        if value != "auto" and not 18 <= value <= 23:
            raise ValueError("expected auto or 18 to 23")
        return value


class UiConfig(Group):
    """The dashboard."""

    theme: Literal["auto", "dark", "light", "ansi"] = "auto"
    """`auto` is dark, or the terminal's own colours where it has only 16."""
    redraw_hz: float = Field(2.0, ge=0.1, le=10.0)
    """Redraws of the curves per second, at most. While the run computes there are fewer, down to one in 2 s, where building the
    panes would take more than 0.75 % of a core."""
    low_bandwidth: bool = False
    """Redraw every 4 s at most, for slow links; keys are answered as quickly as ever. `--low-bandwidth` sets it; `attach` and
    `show` take that option for themselves."""
    mouse: bool = True
    """Whether the mouse is reported; false sends fewer bytes over slow links."""
    bell: bool = True
    """Ring the terminal's bell when the run ends or fails, and send a notification where the terminal supports them (OSC 9)."""


class Config(Group):
    """The whole configuration of a run."""

    run: RunConfig = Field(default_factory=RunConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)
    ui: UiConfig = Field(default_factory=UiConfig)

    @model_validator(mode="after")
    def _cross_checks(self) -> Config:
        accum, batch = self.train.grad_accum_steps, self.data.batch_size
        if batch % accum:
            raise ValueError(f"data.batch_size {batch} must be divisible by train.grad_accum_steps {accum}")
        if batch // accum < 2:
            raise ValueError(f"micro-batches of {batch // accum} image are too small for batch norm; use at least 2")
        small = sum(epochs for _, epochs in self.data.progressive)
        if small >= self.train.epochs:
            raise ValueError(
                f"data.progressive takes {small} epochs, and train.epochs is {self.train.epochs}: none is left at image_size, "
                "the size at which the network is evaluated and used"
            )
        model = self.model
        if model.freeze != "none" and model.init_from is None:
            raise ValueError(f"model.freeze: {model.freeze} needs model.init_from; frozen random weights cannot learn")
        if model.unfreeze_after is not None and model.freeze == "none":
            raise ValueError("model.unfreeze_after needs model.freeze: there is nothing to unfreeze")
        if model.unfreeze_every and model.unfreeze_after is None:
            raise ValueError("model.unfreeze_every needs model.unfreeze_after, the epochs before the first stage")
        if model.cache_features and model.freeze != "backbone":
            raise ValueError("model.cache_features needs model.freeze: backbone; features of trained layers change")
        return self


RESUME_OVERRIDES = (
    "run.device", "run.cuda_graph", "run.sinks", "run.stop_on_signals", "data.root", "data.workers", "data.cache", "train.epochs",
    "train.early_stop_epochs", "eval.", "checkpoint.", "export.", "ui.",
)  # fmt: skip
"""Keys (or groups, with a dot at the end) that a resume may change; anything else would make it another run."""

CHANGEABLE = ("train.epochs", "eval.every_epochs", "checkpoint.every_s")  # during a run


def may_change_on_resume(key: str) -> bool:
    """Whether `--resume key=value` is allowed for this dotted key."""
    return any(key == allowed or (allowed.endswith(".") and key.startswith(allowed)) for allowed in RESUME_OVERRIDES)
