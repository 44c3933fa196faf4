"""A lock that prevents training and viewing from starving each other."""

from __future__ import annotations

from collections import deque
from threading import Lock, get_ident


class FairLock:
    """A reentrant lock that is handed over in first-in, first-out order.

    With `threading.Lock`, a thread that releases it and immediately acquires it again usually succeeds: training steps
    would follow each other while the viewer waits, or frames while training waits.

    The holder may acquire it again, and must release it as many times.
    """

    def __init__(self) -> None:
        self._state = Lock()
        self._held = False
        self._holder: int | None = None
        self._reentries = 0
        self._queue: deque[Lock] = deque()

    @property
    def held(self) -> bool:
        """Whether a thread holds it."""
        return self._held

    @property
    def waiting(self) -> int:
        """Number of threads in the queue."""
        return len(self._queue)

    def acquire(self) -> None:
        """Wait for this thread's turn."""
        if self._holder == get_ident():
            self._reentries += 1
            return
        self._wait()
        self._holder = get_ident()

    def release(self) -> None:
        """Hand the lock to the first thread in the queue. Only the holder may call this."""
        if self._reentries:
            self._reentries -= 1
            return
        self._holder = None
        self._hand_over()

    def _wait(self) -> None:
        turn = Lock()
        turn.acquire()
        with self._state:
            if not self._held:
                self._held = True
                return
            self._queue.append(turn)
        try:
            turn.acquire()
        except BaseException:
            # Interrupted from the keyboard: leave the queue, or pass on the lock if it was handed over meanwhile.
            self._leave(turn)
            raise

    def _hand_over(self) -> None:
        with self._state:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._held = False

    def _leave(self, turn: Lock) -> None:
        with self._state:
            queued = turn in self._queue
            if queued:
                self._queue.remove(turn)
        if not queued:
            self._hand_over()

    def __enter__(self) -> FairLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
