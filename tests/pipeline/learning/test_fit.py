"""Training learns, chooses by validation, and a kill changes nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import children
import numpy as np
import pytest
import torch
from bars import (
    BARS,
    NETWORK,
    SIGNS,
    TRAIN,
    assert_same_run,
    bars,
    dataset,
    metrics,
    train,
    weights,
)
from full_disk import full_disk
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pipeline.datasets.arrays import (
    Dataset,
    open_dataset,
    write_info,
    write_split,
)
from pipeline.errors import TrainError
from pipeline.learning.training import clock as clock_module
from pipeline.learning.training import device as device_module
from pipeline.learning.training import fit as fit_module
from pipeline.learning.training import memory
from pipeline.learning.training.checkpoint import load_checkpoint
from pipeline.learning.training.device import bfloat16_pays
from pipeline.learning.training.distillation import (
    TeacherScores,
    check_same_images,
    teacher_scores,
)
from pipeline.learning.training.evaluate import probabilities
from pipeline.learning.training.fit import fit
from pipeline.learning.training.optimize import (
    averaged_copy,
    learning_rate,
    training_loss,
)
from pipeline.learning.training.results import StepProgress
from pipeline.recipe import DistillOptions
from pipeline.tasks import training_task

ONE, EACH = training_task("multi-class"), training_task("multi-label")


class Killed(Exception):
    pass


def kill_at(step: int) -> Callable[[StepProgress], None]:
    def on_step(progress: StepProgress) -> None:
        if progress.step == step:
            raise Killed

    return on_step


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    train(folder)
    return folder


# --- it learns --------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_multi_class_is_learned(tmp_path: Path, optimizer: str) -> None:
    data = dataset(train=600)
    lr = 0.1 if optimizer == "sgd" else 0.01
    options = TRAIN.model_copy(
        update={"epochs": 6, "checkpoint_seconds": 60, "optimizer": optimizer, "lr": lr}
    )
    seen: list[StepProgress] = []
    before = torch.get_num_threads(), torch.get_rng_state()
    result = train(tmp_path, options, data=data, on_step=seen.append)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])

    answer = probabilities(load_checkpoint(tmp_path / "checkpoint.pt"), data.test.images)
    assert (answer.argmax(1) == data.test.labels).mean() > 0.95
    assert result.val_accuracy_percent > 95
    assert (result.epochs, result.device, result.threads) == (6, "cpu", 1)
    assert not result.resumed
    assert result.notes == ()
    assert result.parameters == 8 * 9 + 16 + 64 * 9 + 16 + 27
    assert 0 < result.cpu_seconds < 60
    assert [p.step for p in seen] == list(range(1, 6 * 37 + 1))
    assert (seen[-1].steps, seen[-1].epoch, seen[-1].epochs) == (6 * 37, 6, 6)
    assert seen[0].val_accuracy_percent is None
    assert seen[-1].val_accuracy_percent == metrics(tmp_path)[4]["val_accuracy_percent"]
    names = ["checkpoint.pt", "metrics.jsonl", "resume.pt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_multi_label_is_learned(tmp_path: Path) -> None:
    data = dataset(multi_label=True, train=600)
    options = TRAIN.model_copy(update={"epochs": 6, "checkpoint_seconds": 60})
    result = fit(data, SIGNS, NETWORK, options, 0, tmp_path)
    answer = probabilities(load_checkpoint(tmp_path / "checkpoint.pt"), data.test.images)
    assert ((answer > 0.5) == data.test.labels).mean() > 0.95
    assert result.val_accuracy_percent > 95  # the mean over both labels


def test_the_best_epoch_by_validation_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epoch 2: of two equal accuracies the one with the smaller loss."""
    validations = iter([(0.5, 60.0), (0.4, 90.0), (0.6, 90.0)])  # (loss, accuracy)
    states: list[dict[str, torch.Tensor]] = []

    def validate(network: torch.nn.Module, *_: object) -> tuple[float, float]:
        states.append({k: v.clone() for k, v in network.state_dict().items()})
        return next(validations)

    monkeypatch.setattr(fit_module, "validate", validate)
    result = train(tmp_path)
    assert (result.best_epoch, result.val_accuracy_percent) == (2, 90.0)
    for key, value in weights(tmp_path).items():
        assert torch.equal(value, states[1][key])


def test_averages_include_the_statistics_of_batch_norm() -> None:
    network = torch.nn.BatchNorm1d(2)
    averaged = averaged_copy(network, decay=0.5)
    averaged.update_parameters(network)  # the first one copies
    network.running_mean += 8  # type: ignore[operator]
    network.num_batches_tracked += 3  # type: ignore[operator]
    averaged.update_parameters(network)
    # the early decay is (1 + 1) / (10 + 1), less than the 0.5 that were asked for
    torch.testing.assert_close(averaged.module.running_mean, torch.full((2,), 8 * 9 / 11))
    assert averaged.module.num_batches_tracked == 3


def test_the_rate_goes_up_and_down_once() -> None:
    rates = [learning_rate(step, 100, TRAIN) for step in range(100)]
    top = int(np.argmax(rates))
    assert top == 20  # warmup = 0.2
    assert rates[top] == TRAIN.lr
    assert rates[0] == pytest.approx(TRAIN.lr / 25)
    assert rates[-1] == pytest.approx(TRAIN.lr / 1000)
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    constant = TRAIN.model_copy(update={"schedule": "constant"})
    assert {learning_rate(step, 100, constant) for step in range(100)} == {TRAIN.lr}
    assert learning_rate(0, 1, TRAIN.model_copy(update={"warmup": 0.0})) == TRAIN.lr


def test_smoothed_labels_are_best_answered_short_of_certainty() -> None:
    label, score = torch.tensor([[1]]), torch.tensor([[0.9]]).logit()
    target = EACH.targets(label, 1, 0.2)
    smoothed = training_loss(score, target, EACH)
    assert smoothed < training_loss(score + 0.1, target, EACH)
    assert smoothed < training_loss(score - 0.1, target, EACH)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_cross_entropy(smoothing: float) -> None:
    torch.manual_seed(0)
    scores, classes = 3 * torch.randn(8, 5), torch.randint(0, 5, (8,))
    own = training_loss(scores, ONE.targets(classes, 5, smoothing), ONE)
    assert own == pytest.approx(float(cross_entropy(scores, classes, label_smoothing=smoothing)))
    labels = torch.randint(0, 2, (8, 5))
    own = training_loss(scores, EACH.targets(labels, 5), EACH)
    assert own == pytest.approx(float(binary_cross_entropy_with_logits(scores, labels.float())))


def test_rare_answers_weigh_more() -> None:
    labels = torch.zeros(100, 2, dtype=torch.uint8)
    labels[:10, 0] = 1
    labels[:50, 1] = 1
    weights = EACH.answer_weights(labels, 2, rare=1.0)
    assert weights is not None
    assert weights[1].tolist() == pytest.approx([5, 1])  # 1 / (2 * 0.1), 1 / (2 * 0.5)
    assert weights[0].tolist() == pytest.approx([1 / 1.8, 1])
    half = EACH.answer_weights(labels, 2, rare=0.5)
    assert half is not None
    assert half[1, 0] == pytest.approx(5**0.5)
    classes = torch.tensor([0] * 75 + [1] * 25)
    by_class = ONE.answer_weights(classes, 2, rare=1.0)
    assert by_class is not None
    assert by_class.tolist() == [pytest.approx([2 / 3, 2])]
    assert EACH.answer_weights(labels, 2, rare=0.0) is None
    # an answer weighs by its own target
    score, yes = torch.zeros(1, 2), torch.tensor([[1.0, 1.0]])
    loss = training_loss(score, yes, EACH, weights)
    assert loss == pytest.approx((5 + 1) / 2 * np.log(2))


@pytest.mark.parametrize("task", [ONE, EACH])
def test_focal_loss_has_a_finite_slope_at_certainty(task: Any) -> None:
    logits = torch.tensor([[25.0, -5.0]], requires_grad=True)
    training_loss(logits, torch.tensor([[1.0, 0.0]]), task, focal=0.5).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_focal_loss_ignores_confident_answers() -> None:
    known, unknown = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    target = torch.tensor([[1.0, 0.0]])

    def ratio(focal: float) -> float:
        of_known = training_loss(known, target, ONE, focal=focal)
        return float(of_known / training_loss(unknown, target, ONE, focal=focal))

    assert ratio(2.0) < 0.01 * ratio(0.0)
    p = float(torch.sigmoid(torch.tensor(4.0)))
    by_hand = -((1 - p) ** 2) * np.log(p)
    loss = training_loss(known, target, ONE, focal=2.0)
    assert loss == pytest.approx(by_hand, rel=1e-4)


def test_trimming_leaves_the_largest_losses_out() -> None:
    scores = torch.tensor([[5.0], [5.0], [5.0], [-5.0]])  # the last has a wrong label
    target = torch.ones(4, 1)
    trimmed = training_loss(scores, target, EACH, trim=0.25)
    assert trimmed == pytest.approx(float(training_loss(scores[:3], target[:3], EACH)))


# --- a teacher ----------------------------------------------------------------------------------


def test_a_student_learns_from_its_teacher_alone(tmp_path: Path) -> None:
    """Random labels, and the scores of a teacher that is right."""
    data = dataset()
    truth = np.asarray(data.train.labels)
    nonsense = np.random.default_rng(0).permutation(truth)
    unlabelled = replace(data, train=replace(data.train, labels=nonsense))
    scores = (8 * np.eye(3, dtype=np.float32))[truth]
    options = DistillOptions(teacher="any", weight=1.0)
    longer = TRAIN.model_copy(update={"epochs": 8})
    alone = train(tmp_path / "alone", longer, data=unlabelled)
    taught = train(
        tmp_path / "taught", longer, data=unlabelled, teacher=TeacherScores(scores, options)
    )
    assert taught.val_accuracy_percent > 90
    assert alone.val_accuracy_percent < taught.val_accuracy_percent - 20


def test_blending_targets_equals_adding_losses() -> None:
    torch.manual_seed(0)
    scores = np.random.default_rng(0).normal(0, 3, (6, 4)).astype(np.float32)
    indices = np.array([5, 1, 2])
    teacher = TeacherScores(scores, DistillOptions(teacher="any", weight=0.3, temperature=2))
    logits, labels = torch.randn(3, 4), torch.tensor([0, 3, 1])
    target = ONE.targets(labels, 4)
    blended = training_loss(logits, teacher.blended(target, indices, ONE), ONE)
    soft = torch.from_numpy(scores[indices] / 2).softmax(1)
    apart = 0.7 * cross_entropy(logits, labels) + 0.3 * cross_entropy(logits, soft)
    assert blended == pytest.approx(float(apart), rel=1e-5)


def test_scores_are_kept_and_average_the_mirror_image(tmp_path: Path) -> None:
    train(tmp_path)
    network, data = load_checkpoint(tmp_path / "checkpoint.pt"), dataset()
    cpu = torch.device("cpu")
    scores = teacher_scores(network, data.train, BARS, True, cpu, "float32", tmp_path)
    images = torch.from_numpy(np.asarray(data.train.images))
    with torch.no_grad():
        expected = (network.logits(images) + network.logits(images.flip(2))) / 2
    assert np.abs(scores - expected.numpy()).max() < 1e-4
    calls: list[int] = []
    again = teacher_scores(
        network,
        data.train,
        BARS,
        True,
        cpu,
        "float32",
        tmp_path,
        lambda done, _: calls.append(done),
    )
    assert np.array_equal(scores, again)
    assert calls == []
    other = replace(BARS, labels=("none", "level", "upright"))
    with pytest.raises(TrainError, match=r"distill\.teacher.*data\.attributes"):
        teacher_scores(network, data.train, other, True, cpu, "float32", tmp_path)


def test_a_teacher_of_other_images_is_refused() -> None:
    own = dataset()
    check_same_images(own, own)
    train_split, test = own.train, own.test
    turned = replace(train_split, ids=train_split.ids[::-1], labels=train_split.labels[::-1])
    drawn_anew = replace(train_split, labels=1 - np.minimum(train_split.labels, 1))
    others = (
        replace(own, train=turned),
        replace(own, train=drawn_anew),
        replace(own, test=replace(test, ids=test.ids[::-1])),
        dataset(train=150),
    )
    for other in others:
        with pytest.raises(TrainError, match=r"teacher .*\[preprocess\] and seed"):
            check_same_images(other, own)


# --- a time limit -------------------------------------------------------------------------------


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two milliseconds pass between two readings of the clock, on any machine."""
    readings = count()
    clock = SimpleNamespace(
        perf_counter=lambda: 0.002 * next(readings), process_time=time.process_time
    )
    monkeypatch.setattr(fit_module, "time", clock)
    monkeypatch.setattr(clock_module, "time", clock)


@pytest.mark.usefixtures("steady_clock")
def test_a_time_limit_ends_training_with_a_small_rate_and_a_note(tmp_path: Path) -> None:
    rates: list[float] = []
    result = train(
        tmp_path,
        TRAIN.model_copy(update={"epochs": 100_000, "max_minutes": 0.03}),
        on_step=lambda progress: rates.append(progress.lr),
    )
    assert not result.complete
    assert result.epochs < 100_000
    assert "INCOMPLETE: train.max_minutes = 0.03" in " ".join(result.notes)
    assert max(rates) > 0.9 * TRAIN.lr
    assert rates[-1] < 0.2 * TRAIN.lr
    assert (tmp_path / "checkpoint.pt").exists()
    assert train(tmp_path / "whole").complete


def test_a_run_killed_after_its_time_limit_is_validated_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TRAIN.model_copy(update={"max_minutes": 1e-6, "checkpoint_seconds": 0})

    class Killed(Exception):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(fit_module, "validate", die)
        with pytest.raises(Killed):
            train(tmp_path, options)
    assert (tmp_path / "resume.pt").exists()
    result = train(tmp_path, options)
    assert result.resumed and not result.complete
    assert (result.epochs, result.best_epoch) == (1, 1)


@pytest.mark.usefixtures("steady_clock")
def test_labels_are_trimmed_by_time_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    loss = fit_module.training_loss

    def spy(*args: Any) -> torch.Tensor:
        seen.append(args[-1])
        return loss(*args)

    monkeypatch.setattr(fit_module, "training_loss", spy)
    changes = {"epochs": 100_000, "max_minutes": 0.03, "trim": 0.1}
    train(tmp_path, TRAIN.model_copy(update=changes))
    assert seen[0] == 0 and seen[-1] == 0.1


def test_precision_is_as_requested(tmp_path: Path) -> None:
    for requested in ("float32", "bfloat16"):
        result = train(tmp_path / requested, TRAIN.model_copy(update={"precision": requested}))
        assert result.precision == requested
    auto = TRAIN.model_copy(update={"precision": "auto"})
    precision = train(tmp_path / "auto", auto).precision
    assert precision == ("bfloat16" if bfloat16_pays() else "float32")


@pytest.mark.parametrize(
    ("capability", "seconds", "pays"),
    [
        ("avx512_bf16", {torch.bfloat16: 1.0, torch.float32: 1.7}, True),
        ("amx_tile", {torch.bfloat16: 0.2, torch.float32: 1.7}, True),
        ("avx512_bf16", {torch.bfloat16: 3.2, torch.float32: 1.7}, False),
        ("avx512_bf16", {torch.bfloat16: 1.0, torch.float32: 1.1}, False),  # not worth it
        ("avx2", {}, False),  # not measured: without instructions it takes seconds
    ],
)
def test_bfloat16_is_used_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, capability: str, seconds: dict[torch.dtype, float], pays: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    monkeypatch.setattr(device_module, "product_seconds", lambda matrix: seconds[matrix.dtype])
    assert bfloat16_pays.__wrapped__() == pays


# --- it resumes -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 12, 17, 24, 36])  # an epoch has 12 steps
def test_a_broken_run_ends_with_the_same_bits(tmp_path: Path, unbroken: Path, step: int) -> None:
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(step))
    torch.rand(5)  # between the two, outside of training
    seen: list[int] = []
    result = train(tmp_path, on_step=lambda p: seen.append(p.step))
    assert result.resumed
    assert result.notes == ()
    assert seen == list(range(step + 1, 37))
    assert_same_run(unbroken, tmp_path)


def test_a_finished_run_has_nothing_to_do(tmp_path: Path, unbroken: Path) -> None:
    """Its caller may have failed after it."""
    first = train(tmp_path)
    again = train(tmp_path, on_step=kill_at(1))
    assert again.resumed
    assert again.val_accuracy_percent == first.val_accuracy_percent
    assert_same_run(unbroken, tmp_path)


@pytest.mark.parametrize(
    ("instructions", "then"), [(True, "bfloat16"), (False, "float32")], ids=["same", "other CPU"]
)
def test_a_resumed_run_keeps_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instructions: bool, then: str
) -> None:
    """A second measurement does not matter, as long as this CPU has the instructions."""
    options = TRAIN.model_copy(update={"precision": "auto"})
    monkeypatch.setattr(device_module, "bfloat16_pays", lambda: True)
    monkeypatch.setattr(fit_module, "bfloat16_instructions", lambda: instructions)
    with pytest.raises(Killed):
        train(tmp_path, options, on_step=kill_at(8))
    monkeypatch.setattr(device_module, "bfloat16_pays", lambda: False)
    result = train(tmp_path, options)
    assert (result.resumed, result.precision) == (True, then)
    expected = [] if instructions else ["precision float32 after bfloat16"]
    notes = [re.findall("precision .* after [^:]*", note)[0] for note in result.notes]
    assert notes == expected


def test_two_threads_repeat_their_bits(tmp_path: Path) -> None:
    # one epoch only: on a busy machine two threads spend most of the time waiting for each other
    two = TRAIN.model_copy(update={"threads": 2, "optimizer": "adamw", "lr": 0.01, "epochs": 1})
    train(tmp_path / "unbroken", two)
    with pytest.raises(Killed):
        train(tmp_path / "broken", two, on_step=kill_at(6))
    assert train(tmp_path / "broken", two).notes == ()
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def test_only_the_steps_after_the_last_checkpoint_are_lost(tmp_path: Path, unbroken: Path) -> None:
    """A checkpoint of step 14 continues a run that got to step 30, and no epoch appears twice."""
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(14))
    kept = (tmp_path / "resume.pt").read_bytes()
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(30))
    assert len(metrics(tmp_path)) == 2
    (tmp_path / "resume.pt").write_bytes(kept)
    train(tmp_path)
    assert_same_run(unbroken, tmp_path)


def test_kill_9_in_mid_epoch_changes_nothing(tmp_path: Path, unbroken: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    splits = dataset()
    for name in ("train", "val", "test"):
        write_split(data, name, getattr(splits, name))
    write_info(data, splits.info)
    process = children.start_script("train_bars.py", data, out, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 19:
            process.send_signal(signal.SIGKILL)
            break
    process.wait(timeout=children.PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "checkpoint.pt").exists()
    result = train(out, data=open_dataset(data))
    assert result.resumed
    assert_same_run(unbroken, out)


def test_another_number_of_threads_resumes_with_a_note(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(30))
    result = train(tmp_path, TRAIN.model_copy(update={"threads": 2}))
    assert result.resumed
    assert result.threads == 2
    (note,) = result.notes
    assert re.search("step 30 .*threads 2 after 1.* not bit-equal", note)
    assert len(metrics(tmp_path)) == 3


@pytest.mark.parametrize("size", [0, 1, 1000, -1])
def test_a_truncated_checkpoint_is_set_aside(tmp_path: Path, unbroken: Path, size: int) -> None:
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(5))
    path = tmp_path / "resume.pt"
    path.write_bytes(path.read_bytes()[:size])
    result = train(tmp_path)
    assert not result.resumed
    assert re.search(r"resume\.pt .*resume\.damaged\.pt", result.notes[0])
    assert (tmp_path / "resume.damaged.pt").exists()
    assert_same_run(unbroken, tmp_path)


def test_a_checkpoint_of_another_recipe_is_set_aside(tmp_path: Path, unbroken: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, TRAIN.model_copy(update={"lr": 0.2}), on_step=kill_at(5))
    kept = (tmp_path / "resume.pt").read_bytes()
    result = train(tmp_path)
    assert not result.resumed
    assert re.search(r"resume\.pt .*train\.lr.*resume\.other\.pt", result.notes[0])
    assert (tmp_path / "resume.other.pt").read_bytes() == kept
    assert_same_run(unbroken, tmp_path)


def test_times_add_up_over_resumes(tmp_path: Path) -> None:
    def slow(progress: StepProgress) -> None:
        time.sleep(0.02)
        kill_at(20)(progress)

    with pytest.raises(Killed):
        train(tmp_path, on_step=slow)
    assert train(tmp_path).wall_seconds > 0.38


FAULTS = """
import resource
import numpy
from pipeline.learning.training.memory import freed_memory_is_kept

def faults():  # of 200 blocks of 2 MB that are asked for, written and freed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        numpy.ones(250_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

numpy.ones(500_000)  # glibc's own rule: what is freed once is kept from then on
print(faults())
with freed_memory_is_kept():
    print(faults())
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="not run: glibc's allocator is Linux's")
def test_freed_memory_is_kept_and_leaves_the_process_no_slower() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, cwd=root
    )
    before, during, after = map(int, done.stdout.split())
    assert during <= 5000  # each block's 489 pages, 200 times, were 97,800
    assert after <= before + 5000


def test_freed_memory_is_given_back_after_training(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int, int]] = []

    class Libc:
        def mallopt(self, option: int, value: int) -> None:
            calls.append(("mallopt", option, value))

        def malloc_trim(self, pad: int) -> None:
            calls.append(("trim", pad, 0))

    monkeypatch.setattr(memory, "glibc", Libc)
    with memory.freed_memory_is_kept():
        assert len(calls) == 3
    assert calls[-1] == ("trim", 0, 0)
    before = len(calls)
    monkeypatch.setattr(memory, "glibc", lambda: None)  # not Linux, or musl
    with memory.freed_memory_is_kept():
        pass
    assert len(calls) == before


# --- it refuses -------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_at_once(tmp_path: Path) -> None:
    options = TRAIN.model_copy(update={"lr": 1e30, "checkpoint_seconds": 60.0})
    with pytest.raises(TrainError, match=r"(nan|inf) at step \d of 36 .*train\.lr"):
        train(tmp_path, options)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_cuda_device_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r'train\.device = "cuda".* torch .*"auto"'):
        train(tmp_path, TRAIN.model_copy(update={"device": "cuda"}))


def _with(**changes: Any) -> Dataset:
    data = dataset()
    return replace(data, **{k: replace(getattr(data, k), **v) for k, v in changes.items()})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (replace(dataset(), val=bars(0, 0)), "val split .* 0 .* 1"),
        (replace(dataset(), train=bars(1, 0)), "train split .* 1 .* 2"),
        (
            _with(train={"images": np.zeros((200, 12, 12, 3), np.uint8)}),
            r"train images .*uint8 \(12, 12, 3\).*uint8 \(12, 12, 1\)",
        ),
        (_with(val={"images": np.zeros((60, 12, 12, 1))}), "val images .*float64"),
        (_with(val={"labels": np.full(60, 3)}), "val labels .* 3 to 3.* 0 to 2"),
        (
            _with(train={"labels": np.zeros((200, 2), np.uint8)}),
            r"train .*\(200, 2\).*\(200,\)",
        ),
    ],
)
def test_data_that_contradict_the_spec_are_named(
    tmp_path: Path, data: Dataset, message: str
) -> None:
    with pytest.raises(TrainError, match=message):
        train(tmp_path, data=data)


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX")
def test_a_full_disk_is_named_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_at(5))
    before = (tmp_path / "resume.pt").read_bytes()
    with full_disk(), pytest.raises(TrainError, match=r"resume\.pt \([\d,]+ bytes\)"):
        train(tmp_path)
    assert (tmp_path / "resume.pt").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.jsonl", "resume.pt"]
