"""A lock that keeps training and viewing from starving each other."""

from __future__ import annotations

from collections import deque
from threading import Lock, get_ident


class FairLock:
    """A lock that is handed to the thread that has waited longest.

    With `threading.Lock` a loop that releases and acquires at once usually gets the lock again: training steps would
    follow each other while the viewer waits, or frames while training waits.

    Reentrant: its holder may acquire it again, and has to release it as often.
    """

    def __init__(self) -> None:
        self._state = Lock()
        self._held = False
        self._holder: int | None = None
        self._again = 0
        self._queue: deque[Lock] = deque()

    @property
    def held(self) -> bool:
        """Whether a thread holds it."""
        return self._held

    @property
    def waiting(self) -> int:
        """Threads in the queue."""
        return len(self._queue)

    def acquire(self) -> None:
        """Wait for this thread's turn."""
        if self._holder == get_ident():
            self._again += 1
            return
        self._wait()
        self._holder = get_ident()

    def release(self) -> None:
        """Hand the lock to the first thread in the queue. Only the holder may call this."""
        if self._again:
            self._again -= 1
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
