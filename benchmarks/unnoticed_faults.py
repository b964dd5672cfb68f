"""Faults that the tests once did not notice, for `benchmarks.planted_faults`."""

from __future__ import annotations

from tests.support.planting import Fault

FAULTS = (
    Fault(
        "predict-order",
        "trainer.commands.predict.predict",
        "names = [batch[index] for index in kept]",
        "names = batch[:len(kept)]",
    ),
    Fault(
        "loop-ema",
        "trainer.training.loop.Trainer._train_epoch",
        "if self.state.ema is not None: self.state.ema.update(self.state.step)",
        "pass",
    ),
    Fault(
        "step-classweights",
        "trainer.training.step.TrainStep._losses",
        "losses_N if self._class_weights_K is None else losses_N * self._class_weights_K[labels_N]",
        "losses_N",
    ),
    Fault(
        "weights-head",
        "trainer.model.weight_loading.load_initial_weights",
        "weights.classes != tuple(classes)",
        "set(weights.classes or ()) != set(classes)",
    ),
    Fault(
        "heldout-labels",
        "trainer.data.folder.held_out.hold_out",
        "groups = [copies for copies in groups if len(labels_of[keys[copies[0]]]) == 1]",
        "pass",
    ),
    Fault(
        "head-dropout",
        "trainer.model.resnet.Head._mask",
        "drawn >= round(self.dropout * _DROPOUT_GRAIN)",
        "drawn < round(self.dropout * _DROPOUT_GRAIN)",
    ),
    Fault("step-smoothing", "trainer.training.step.TrainStep._losses", "self._config.train.label_smoothing", "0.0"),
    Fault(
        "recipe-lr",
        "trainer.data.folder.suggested_config._training",
        "round(0.05 * batch_size / 64, 4)",
        "round(0.05 * 64 / batch_size, 4)",
    ),
    Fault(
        "ckpt-choose",
        "trainer.model.checkpoint_folder.CheckpointFolder.choose",
        'best is not None and read_metadata(best).get("selection_split") == "val"',
        "best is not None",
    ),
    Fault(
        "evaluator-ema",
        "trainer.training.interim_evaluation.InterimEvaluator.evaluate",
        "checkpoint.evaluated_weights",
        'checkpoint.group("model")',
    ),
    Fault("evaluate-tta", "trainer.evaluation.evaluate.evaluate", "images_NCHW.flip(3)", "images_NCHW.flip(2)"),
    Fault("onnx-parity-mean", "trainer.export.onnx_file.compare", "np.max(differences)", "np.min(differences)"),
    Fault("ckpt-fsync", "trainer.model.checkpoint.write_checkpoint", "sync(file.fileno())", "pass"),
    Fault("ckpt-readback", "trainer.model.checkpoint.write_checkpoint", "read_checkpoint(temporary)", "pass"),
    Fault(
        "writer-sync",
        "trainer.session.checkpoint_writer.CheckpointWriter._write",
        "self._log.sync(timeout=5.0)",
        "pass",
    ),
    Fault(
        "replay-overlap",
        "trainer.run.view.replay._fold_together",
        'numbers[0] <= view.seq or not checks_of(Monitored)["readings"](readings)',
        'not checks_of(Monitored)["readings"](readings)',
    ),
    Fault("step-share", "trainer.training.step.TrainStep._gradients", "len(micro) / len(batch)", "1.0 / parts"),
    Fault(
        "rules-overfit",
        "trainer.run.diagnosis.loss_rules.overfitting",
        "not risen or not now < at_best or any(event.accuracy > accuracy for event in measured[-3:])",
        "not risen or any(event.accuracy > accuracy for event in measured[-3:])",
    ),
    Fault(
        "layers-torn",
        "trainer.run.diagnosis.layer_rules.exploding_layer",
        "min(share, before.get(name, 0.0)) > _EXPLODING",
        "share > _EXPLODING",
    ),
    Fault(
        "scores-mcnemar-ci",
        "trainer.evaluation.scores.compare",
        "b + c - (b - c) ** 2 / total",
        "b + c + (b - c) ** 2 / total",
    ),
    Fault(
        "socket-uid",
        "trainer.run.control.server.ControlServer._accept",
        "_peer_uid(connection) != os.getuid()",
        "_peer_uid(connection) not in (os.getuid(), -1)",
    ),
    Fault(
        "feed-best",
        "trainer.trackers.feed.Feed._on_resumed",
        "self._bests = [(step, best) for step, best in self._bests if step <= event.step]",
        "pass",
    ),
    Fault(
        "class-sort",
        "tui.state.class_results.class_results",
        "(result.score.recall is None, result.score.recall or 0.0)",
        "result.score.recall or 0.0",
    ),
    Fault(
        "batches-smallest",
        "trainer.data.batches.batches.BatchPlan.steps_per_epoch",
        "rest >= self.smallest",
        "rest > self.smallest",
    ),
    Fault(
        "actions-session",
        "tui.state.keys._command.refusal",
        "now.state not in states or (now.state is RunState.FINISHED and not now.session_open)",
        "now.state not in states",
    ),
    Fault(
        "draws-balance-extra",
        "trainer.data.draws.balanced_order",
        "epoch_order(len(chosen), seed=seed, epoch=epoch)",
        "epoch_order(len(chosen), seed=seed, epoch=0)",
    ),
)
"""Each changes what a user would rely on; one row of it for each finding of an earlier round."""

DRAWN_FROM = (
    "training.*", "model.*", "evaluation.*", "data.*", "export.*", "run.diagnosis.*", "run.view.class_score",
    "config.lr_schedule", "config.freezing", "session.rollback", "session.saver", "session.run_edits",
    "session.checkpoint_writer", "commands.eval", "commands.predict",
)  # fmt: skip
"""Modules of `trainer` in which faults are drawn."""
