# SPDX-License-Identifier: Apache-2.0
"""The thread beside the loop: it looks, waits as long as it was told, wakes when it is called, and ends."""

import threading

from edge_agent.adapters.beside import Beside


class Looks:
    """Counts looks, and waits for the n-th."""

    def __init__(self, pause_s: float) -> None:
        self.count, self._pause_s, self._changed = 0, pause_s, threading.Condition()

    def __call__(self) -> float:
        with self._changed:
            self.count += 1
            self._changed.notify_all()
        return self._pause_s

    def reach(self, n: int, seconds: float = 60.0) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= n, seconds)


def test_it_looks_again_after_each_pause_until_it_is_stopped() -> None:
    looks = Looks(0.01)
    thread = Beside("test", looks, first_s=0.0)
    thread.start()
    assert looks.reach(3)
    thread.stop()
    thread._thread.join(60)
    seen = looks.count
    assert not looks.reach(seen + 1, 0.1)


def test_who_waits_for_an_hour_is_woken_and_waits_again() -> None:
    looks = Looks(3600.0)
    thread = Beside("test", looks, first_s=3600.0)
    thread.start()
    assert not looks.reach(1, 0.05)
    for n in (1, 2):
        thread.wake(0.01)
        assert looks.reach(n)
    assert not looks.reach(3, 0.1)
    thread.stop()
    thread._thread.join(60)


def test_a_stop_ends_a_wait_at_once_and_looks_no_more() -> None:
    looks = Looks(3600.0)
    thread = Beside("test", looks, first_s=3600.0)
    thread.start()
    thread.stop()
    thread._thread.join(60)
    assert looks.count == 0
