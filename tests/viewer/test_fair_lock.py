"""Steps and frames take turns: shown by counting, not by timing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from consistent4d_ns.viewer.fair_lock import FairLock
from tests.support.tiny import tiny_config, toy_folder

LIMIT = 60.0


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_the_lock_goes_to_whoever_has_waited_longest():
    lock, order = FairLock(), []

    def take(name: int) -> None:
        with lock:
            order.append(name)

    lock.acquire()
    threads = []
    for name in range(8):
        threads.append(started(lambda name=name: take(name)))
        wait_for(lambda name=name: lock.waiting == name + 1)
    lock.release()
    for thread in threads:
        thread.join(LIMIT)
    assert order == list(range(8))
    assert lock.waiting == 0


def test_two_greedy_loops_alternate():
    """Each lets go only when the other waits, and asks again at once."""
    lock, done = FairLock(), []

    def loop(name: str) -> None:
        for i in range(50):
            with lock:
                done.append(name)
                if i < 49:
                    wait_for(lambda: lock.waiting == 1)

    threads = [started(lambda: loop("step")), started(lambda: loop("frame"))]
    for thread in threads:
        thread.join(LIMIT)
    assert len(done) == 100
    assert all(a != b for a, b in pairwise(done))


def test_only_one_holds_it():
    lock, inside, most = FairLock(), [0], [0]

    def loop() -> None:
        for _ in range(300):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [started(loop) for _ in range(4)]
    for thread in threads:
        thread.join(LIMIT)
    assert not any(thread.is_alive() for thread in threads)
    assert most == [1]


def test_who_holds_it_acquires_it_again_and_others_wait_for_the_last_release():
    lock, entered = FairLock(), []

    def enter() -> None:
        with lock:
            entered.append(lock.waiting)

    with lock:
        with lock:
            other = started(enter)
            wait_for(lambda: lock.waiting == 1)
        assert (lock.waiting, entered) == (1, [])
    other.join(LIMIT)
    assert entered == [0]


def test_an_interrupted_wait_blocks_nobody(monkeypatch):
    """Ctrl-C while waiting: the queue goes on without the one that was interrupted."""
    lock, done = FairLock(), threading.Event()

    def hold() -> None:
        with lock:
            done.wait(LIMIT)

    holder = started(hold)
    wait_for(lambda: lock.held)
    with monkeypatch.context() as patch:
        patch.setattr("consistent4d_ns.viewer.fair_lock.Lock", InterruptedLock)
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
    assert lock.waiting == 0
    later = started(lambda: lock.acquire())
    wait_for(lambda: lock.waiting == 1)
    done.set()
    holder.join(LIMIT)
    later.join(LIMIT)
    assert not later.is_alive()


class InterruptedLock:
    """A lock whose second acquisition is interrupted."""

    def __init__(self) -> None:
        self.acquired = False

    def acquire(self) -> bool:
        if self.acquired:
            raise KeyboardInterrupt
        self.acquired = True
        return True


@pytest.mark.slow
def test_training_lets_a_waiting_frame_in_after_every_step(tmp_path):
    """Every step ends while a frame waits: that frame comes before the evaluation, which asks for the model at once."""
    config = tiny_config(toy_folder(tmp_path))
    config.output_dir, config.vis, config.max_num_iterations = tmp_path / "out", "tensorboard", 40
    config.set_timestamp()
    trainer: Any = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    lock, events, over = trainer.train_lock, [], threading.Event()
    iteration = trainer.train_iteration

    def step(number: int) -> Any:
        events.append("step")
        wait_for(lambda: lock.waiting == 1)
        return iteration(number)

    def view() -> None:
        while not over.is_set():
            with lock:
                events.append("frame")
                time.sleep(0.001)  # Otherwise this loop keeps the interpreter from everybody else.

    trainer.train_iteration, trainer.eval_iteration = step, lambda _: events.append("evaluation")
    viewer = started(view)
    trainer.train()
    over.set()
    viewer.join(LIMIT)
    assert events.count("step") == 40
    assert {after for event, after in pairwise(events) if event == "step"} == {"frame"}
