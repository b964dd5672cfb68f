"""Frozen stages and their unfreezing, cached features, rates by stage, and averaged weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import ConfigMaker, TunedMaker, needs_exporter
from tests.support.checkpoints import run_record
from tests.support.exact_resume import check_that_stops_change_no_bit
from tests.support.running import events_of, new_run, resumed_run, start, train, view_of, wait_for
from trainer.config.freezing import frozen_stages, stage_of, unfreezing_ends
from trainer.config.schema import Config, OptimConfig
from trainer.data import image_folder
from trainer.errors import ConfigError
from trainer.model.checkpoint import Checkpoint, read_checkpoint
from trainer.model.checkpoint_folder import CheckpointFolder
from trainer.model.ema import ModelEma
from trainer.model.resnet import build_model, features_of
from trainer.run.control import commands as cmd
from trainer.run.folder.run_dir import RunDir
from trainer.run.log.event import Event
from trainer.run.log.result_events import Evaluated
from trainer.run.log.run_events import Resumed, StagesFrozen, Warned
from trainer.session.export_run import ExportOptions, export_run
from trainer.training import features, interim_evaluation
from trainer.training.build import build_trainer
from trainer.training.callbacks import LoopCallbacks
from trainer.training.loop import Trainer
from trainer.training.optimizer import build_optimizer

pytestmark = pytest.mark.usefixtures("narrow_network")


def saved(run_dir: RunDir, step: int) -> Checkpoint:
    return read_checkpoint(CheckpointFolder(run_dir, keep=2).at(step))


def changed_stages(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[int]:
    """Stages with a changed weight or statistic."""
    return {stage_of(name) for name in before if not torch.equal(before[name], after[name])}


def test_stages_are_unfrozen_on_a_schedule(make_config: ConfigMaker) -> None:
    def frozen(*overrides: str) -> list[int]:
        model = make_config("model.init_from=x", *overrides).model
        return [frozen_stages(model, epoch) for epoch in range(9)]

    assert frozen() == [0] * 9
    assert frozen("model.freeze=layer2") == [3] * 9
    assert frozen("model.freeze=backbone", "model.unfreeze_after=2") == [5, 5, 0, 0, 0, 0, 0, 0, 0]
    gradual = ("model.freeze=backbone", "model.unfreeze_after=1", "model.unfreeze_every=2")
    assert frozen(*gradual) == [5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert unfreezing_ends(make_config("model.init_from=x", *gradual).model) == 9
    model = make_config("model.init_from=x", "model.freeze=layer3").model
    assert [frozen_stages(model, 0, unfrozen_by_key=keys) for keys in range(-2, 6)] == [5, 5, 4, 3, 2, 1, 0, 0]


def test_a_frozen_stage_keeps_weights_and_statistics_until_unfrozen(tuned: TunedMaker, tmp_path: Path) -> None:
    config = tuned(
        "model.freeze=layer3", "model.unfreeze_after=1", "model.unfreeze_every=1", "train.epochs=3", "checkpoint.every_s=0.001"
    )  # fmt: skip
    run = new_run(config, tmp_path / "runs")
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 2)
    thread.commands.send(cmd.SaveCheckpoint())
    assert thread.join(60)
    assert thread.exit_code == 0
    source = read_checkpoint(next((tmp_path / "source").glob("*/checkpoints/step-00000004.safetensors"))).group("model")
    states = {step: saved(run.run_dir, step) for step in CheckpointFolder(run.run_dir, keep=2).steps()}
    first = min(step for step in states if step > 0)
    if first <= 4:
        assert changed_stages(source, states[first].group("model")) == {4, 5}
    assert changed_stages(source, states[12].group("model")) == {2, 3, 4, 5}, "stem and layer1 stay frozen"
    assert {stage_of(name) for name in states[12].group("momentum")} == {2, 3, 4, 5}
    assert [(event.step, event.stages) for event in events_of(run.run_dir, StagesFrozen)] == [
        (0, ["stem", "layer1", "layer2", "layer3"]), (4, ["stem", "layer1", "layer2"]), (8, ["stem", "layer1"]),
    ]  # fmt: skip


def test_a_key_unfreezes_the_next_stage_permanently(tuned: TunedMaker, tmp_path: Path) -> None:
    run = new_run(tuned("model.freeze=backbone", "train.epochs=60"), tmp_path / "runs")
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 2)
    for _ in range(2):
        thread.commands.send(key := cmd.Unfreeze())
        view = wait_for(run.run_dir, lambda view, key=key: key.command_id in view.acknowledged)  # type: ignore[misc]
        assert view.acknowledged[key.command_id].ok
    wait_for(run.run_dir, lambda view: view.frozen is not None and view.frozen.stages[-1] == "layer2")
    thread.stop("SIGTERM", 143)
    assert thread.join(60)
    resumed = start(resumed_run(run.run_dir, tmp_path / "runs"))
    view = wait_for(run.run_dir, lambda view: len(events_of(run.run_dir, Resumed)) > 0 and view.opened is not None)
    resumed.stop()
    assert resumed.join(60)
    frozen = events_of(run.run_dir, StagesFrozen)
    assert [event.stages[-1] for event in frozen][:3] == ["layer4", "layer3", "layer2"]
    assert frozen[-1].stages[-1] == "layer2", "a resume restores it"
    assert view_of(run.run_dir).frozen == frozen[-1]


class _Keys(LoopCallbacks):
    """Freezes stages before some steps, keeps the state before step `keep_at`, and rolls back to it before `back_from`."""

    trainer: Trainer
    kept: Checkpoint

    def __init__(self, stages: dict[int, int], keep_at: int, back_from: int = -1) -> None:
        self._stages = stages
        self._keep_at = keep_at
        self._back_from = back_from
        self.published: list[Event] = []

    def publish(self, event: Event) -> None:
        self.published.append(event)

    def poll(self, evaluating: float | None = None) -> None:
        step = self.trainer.state.step
        if step in self._stages:
            self.trainer.freeze(self._stages.pop(step))
        if step == self._keep_at and not hasattr(self, "kept"):
            self.kept = self.trainer.state.snapshot(run_record()).completed()
        if step == self._back_from:
            self._back_from = -1
            self.trainer.restore_earlier(self.kept, 1.0)


def test_a_stage_unfrozen_by_key_restarts_and_a_resume_makes_no_difference(
    folder_config: Config,
) -> None:
    config = folder_config.model_copy(update={"train": folder_config.train.model_copy(update={"epochs": 3})})
    whole, later = _Keys({2: 1, 3: 2, 6: 1}, keep_at=4), _Keys({6: 1}, keep_at=4)
    for keys in (whole, later):
        keys.trainer = build_trainer(config, Path("runs"), keys, lambda *_: None, None).trainer
        if keys is later:
            keys.trainer.state.restore(whole.kept)
        keys.trainer.run()
    frozen = [(event.step, event.stages) for event in whole.published if isinstance(event, StagesFrozen)]
    assert frozen == [(2, ["stem"]), (3, ["stem", "layer1"]), (6, ["stem"])]
    first, second = (keys.trainer.state.snapshot(run_record()).completed() for keys in (whole, later))
    changed = changed_stages(whole.kept.group("model"), first.group("model"))
    assert changed == {1, 2, 3, 4, 5}, "the stem is unchanged"
    assert first.meta["unfrozen_by_key"] == -1
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())


@pytest.mark.parametrize("keep_at", [2, 3], ids=["before the freeze", "between key and step"])
def test_a_rollback_across_a_freeze_ends_like_a_resume(folder_config: Config, keep_at: int) -> None:
    config = folder_config.model_copy(update={"train": folder_config.train.model_copy(update={"epochs": 2})})
    back, resumed = _Keys({3: 1, 7: 0}, keep_at, back_from=6), _Keys({7: 0}, keep_at=-1)
    for keys in (back, resumed):
        keys.trainer = build_trainer(config, Path("runs"), keys, lambda *_: None, None).trainer
        if keys is resumed:
            keys.trainer.state.restore(back.kept)
        keys.trainer.run()
    first, second = (keys.trainer.state.snapshot(run_record()).completed() for keys in (back, resumed))
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())


def test_a_state_after_a_rollback_can_be_saved(folder_config: Config) -> None:
    trainer = build_trainer(folder_config, Path("runs"), LoopCallbacks(), lambda *_: None, None).trainer
    kept = trainer.state.snapshot(run_record()).completed()
    trainer.skipped_from = 3
    trainer.restore_earlier(kept, 0.5)
    assert trainer.skipped_from is None


def test_unfreezing_is_refused_if_nothing_is_frozen(tuned: TunedMaker, tmp_path: Path) -> None:
    run = new_run(tuned("train.epochs=40"), tmp_path / "runs")
    thread = start(run)
    wait_for(run.run_dir, lambda view: view.step >= 1)
    thread.commands.send(key := cmd.Unfreeze())
    view = wait_for(run.run_dir, lambda view: key.command_id in view.acknowledged)
    thread.stop()
    assert thread.join(60)
    assert view.acknowledged[key.command_id].message == "nothing is frozen"


def test_cached_features_train_like_images_without_augmentation(tuned: TunedMaker, tmp_path: Path) -> None:
    frozen = ("model.freeze=backbone", "train.epochs=3", "model.dropout=0.3")
    plain = train(tuned(*frozen), tmp_path / "runs").run.run_dir
    cached = train(tuned(*frozen, "model.cache_features=true"), tmp_path / "runs").run.run_dir
    first, second = (view_of(run) for run in (plain, cached))
    assert list(second.train_loss.y) == pytest.approx(list(first.train_loss.y), abs=2e-5)
    weights = [saved(run, 12).group("model") for run in (plain, cached)]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])


def test_cached_features_decode_each_image_once(
    tuned: TunedMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With streaming, each image is decoded once for all epochs."""
    decoded: list[str] = []
    read = image_folder.read_images

    def counting(decoder: Any, paths: Any, **options: Any) -> Any:
        decoded.extend(path for path in paths if "train" in Path(path).parts)
        return read(decoder, paths, **options)

    monkeypatch.setattr(image_folder, "read_images", counting)
    streaming = ("data.cache=none", "data.workers=0", "data.resized_crop=0.5", "data.crop_pct=0.8", "data.mixup=0.5")
    config = tuned("model.freeze=backbone", "model.cache_features=true", "train.epochs=4", *streaming)
    run = train(config, tmp_path / "runs")
    assert run.exit_code == 0
    assert len(decoded) <= 3 * 36, "once each for the statistics, the trial and the features"


def test_training_the_classifier_first_resumes_bit_for_bit(tuned: TunedMaker, tmp_path: Path) -> None:
    config = tuned(
        "model.freeze=backbone", "model.unfreeze_after=2", "model.cache_features=true", "train.epochs=4", "data.flip=random",
        "data.resized_crop=0.6", "data.trivial_augment=true", "data.random_erase=0.3", "data.mixup=0.2", "data.cutmix=1.0",
        "train.ema_decay=0.9", "optim.layer_decay=0.3", "data.balance=sampler", "train.label_smoothing=0.1",
        "run.deterministic=true",
    )  # fmt: skip
    check_that_stops_change_no_bit(config, tmp_path / "runs")


def test_each_stage_has_its_own_rate() -> None:
    model = build_model(build_config_model(), 3, 0)
    optimizer = build_optimizer(
        model, OptimConfig(lr=0.1, weight_decay=0.01, decay_bn_bias=False, layer_decay=0.5), precision="bf16"
    )
    optimizer.set_lr(0.2)
    rates, decays = {}, {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            rates[names[id(parameter)]] = group["lr"]
            decays[names[id(parameter)]] = group["weight_decay"]
    assert rates["fc.weight"] == rates["fc.bias"] == 0.2
    assert rates["layer4.0.conv1.weight"] == pytest.approx(0.1)
    assert rates["layer1.1.bn2.weight"] == pytest.approx(0.2 / 16)
    assert rates["conv1.weight"] == rates["bn1.bias"] == pytest.approx(0.2 / 32)
    assert decays["conv1.weight"] == decays["fc.weight"] == 0.01
    assert decays["bn1.weight"] == decays["fc.bias"] == 0.0
    assert len(rates) == 62


def build_config_model() -> Any:
    from trainer.config.schema import ModelConfig

    return ModelConfig(stem="cifar-maxpool")


def test_features_are_the_inputs_of_the_classifier() -> None:
    model = build_model(build_config_model(), 3, 0).eval()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.fc(features_of(model, images)), model(images))  # type: ignore[operator]


def test_the_average_includes_weights_and_statistics() -> None:
    model = build_model(build_config_model(), 3, 0)
    ema = ModelEma(model, 0.5)
    weight = model.fc.weight  # type: ignore[union-attr]
    expected = weight.detach().clone()  # type: ignore[operator]
    for step in range(1, 5):
        with torch.no_grad():
            weight += step  # type: ignore[operator]
            model.bn1.running_var *= 1.5  # type: ignore[union-attr, operator]
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()  # type: ignore[union-attr]
        ema.update(step)
    assert torch.allclose(ema.model.fc.weight, expected)  # type: ignore[union-attr, arg-type]
    assert float(ema.model.bn1.running_var[0]) not in (1.0, 1.5**4)  # type: ignore[union-attr, index]
    assert not ema.model.training


@needs_exporter
def test_the_average_is_evaluated_saved_and_exported(tuned: TunedMaker, tmp_path: Path) -> None:
    run = train(tuned("train.ema_decay=0.99", "train.epochs=2"), tmp_path / "runs").run.run_dir
    assert {event.weights for event in events_of(run, Evaluated)} == {"ema"}
    state = saved(run, 8)
    assert state.weights_kind == "ema"
    assert not torch.equal(state.group("ema")["fc.weight"], state.group("model")["fc.weight"])
    exported, _ = export_run(run, ExportOptions(which="latest"), lambda _: None)
    assert exported.accuracy == view_of(run).evaluations[-1].accuracy
    import onnx

    properties = {prop.key: prop.value for prop in onnx.load(str(run.export / "model.onnx")).metadata_props}
    assert properties["weights"] == "ema"
    assert json.loads(properties["classes"]) == ["blue", "green", "red"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.freeze=layer2",), "model.freeze: layer2 needs model.init_from"),
        (("model.unfreeze_after=2",), "there is nothing to unfreeze"),
        (("model.init_from=x", "model.freeze=layer1", "model.unfreeze_every=2"), "needs model.unfreeze_after"),
        (("model.init_from=x", "model.freeze=layer1", "model.cache_features=true"), "needs model.freeze: backbone"),
        (("data.resized_crop=0.5", "data.crop_pad=2"), "two ways to crop"),
        (("data.val_fraction=0.5", "data.test_fraction=0.5"), "leave too few to train on"),
    ],
)
def test_conflicting_fine_tuning_settings_are_refused(
    make_config: ConfigMaker, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(*overrides)


def test_a_save_right_after_a_resume_keeps_all_momentum(tuned: TunedMaker, tmp_path: Path) -> None:
    config = tuned("model.freeze=backbone", "model.unfreeze_after=1", "train.epochs=2")
    run = train(config, tmp_path / "runs").run.run_dir
    before = saved(run, 8).group("momentum")
    thread = start(resumed_run(run, tmp_path / "runs"), hold_open=True)
    wait_for(run, lambda view: view.finish is not None and view.opened is not None and view.opened.resume)
    thread.commands.send(key := cmd.SaveCheckpoint())
    wait_for(run, lambda view: key.command_id in view.acknowledged)
    thread.release()
    thread.stop()
    assert thread.join(60)
    after = saved(run, 8).group("momentum")
    assert len(before) == 62
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert view_of(run).frozen is None, "stages frozen by an earlier session are not shown"


def test_features_out_of_memory_are_computed_in_smaller_batches(
    tuned: TunedMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, sizes = features.compute_features, []

    def small_only(*inputs: Any, batch_size: int, **options: Any) -> Tensor:
        sizes.append(batch_size)
        if batch_size > 20:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(*inputs, batch_size=batch_size, **options)

    monkeypatch.setattr(interim_evaluation, "compute_features", small_only)
    run = train(tuned("model.freeze=backbone", "model.cache_features=true", "train.epochs=1"), tmp_path / "runs")
    assert run.exit_code == 0
    assert sizes == [64, 32, 16]
    warned = [event.message for event in events_of(run.run.run_dir, Warned)]
    assert sum("out of memory while computing features" in message for message in warned) == 2
