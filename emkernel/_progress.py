"""What takes long says so: a record of logging when it is done and, on a terminal, one line of status while it lasts.

The line stands on standard error once tasks have lasted, or followed one another closely, for two seconds. It names the
outermost and the innermost one, and is wiped when they end. Where standard error is no terminal nothing is printed.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["LineHandler", "clock", "hidden", "working"]

log = logging.getLogger("emkernel.progress")
PATIENCE, TICK, GAP = 2.0, 0.2, 0.5  # seconds until the line appears, between its changes, and between tasks in a row
WIPE = "\r\x1b[K"

_hidden: ContextVar[bool] = ContextVar("emkernel_progress_hidden", default=False)


class _Task:
    def __init__(self, text: str) -> None:
        self.text = text


class _Line:
    """The status line of a process, kept up to date by a thread, as a solve may not return for long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: list[_Task] = []
        self._began = self._ended = -GAP
        self._running, self._shown = False, ""

    def enter(self, task: _Task) -> None:
        """A task begins; the clock starts anew unless another has just ended."""
        with self._lock:
            now = time.monotonic()
            if not self._tasks and now - self._ended > GAP:
                self._began = now
            self._tasks.append(task)
            if not self._running:
                self._running = True
                threading.Thread(target=self._keep, daemon=True, name="emkernel progress").start()

    def leave(self, task: _Task) -> None:
        """A task ends; after the last one the line is wiped."""
        with self._lock:
            self._tasks.remove(task)
            if not self._tasks:
                self._ended = time.monotonic()
                self._show("")

    def _keep(self) -> None:
        while self._running:
            time.sleep(TICK)
            with self._lock:
                now = time.monotonic()
                if self._tasks and now - self._began >= PATIENCE:
                    self._show(self._text(now - self._began))
                elif not self._tasks and now - self._ended > GAP:
                    self._running = False

    def _text(self, seconds: float) -> str:
        text = ": ".join(dict.fromkeys([self._tasks[0].text, self._tasks[-1].text]))
        after = f" [{clock(seconds)}]"
        room = shutil.get_terminal_size().columns - 1 - len(after)
        return (text if len(text) <= room else text[: max(room - 1, 0)] + "…") + after

    def _show(self, text: str) -> None:
        if text == self._shown:
            return
        self._shown = text
        try:
            sys.stderr.write(WIPE + text)
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):  # the terminal is gone
            self._running = False


_line = _Line()


def _after_fork() -> None:
    global _line
    _line = _Line()  # the thread stayed behind, perhaps with the lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """What is done inside is shown as ``what`` while it lasts, and logged with its time at the end.

    Yields:
        A function that replaces the text.
    """
    began, task, line = time.monotonic(), _Task(what), _line if _wanted() else None

    def say(text: str) -> None:
        task.text = text

    if line:
        line.enter(task)
    try:
        yield say
        seconds = time.monotonic() - began
        log.log(logging.INFO if seconds >= PATIENCE else logging.DEBUG, "%s: %.2f s", what, seconds)
    finally:
        if line:
            line.leave(task)


def _wanted() -> bool:
    try:
        terminal = sys.stderr.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False
    return terminal and not _hidden.get() and os.environ.get("TERM") != "dumb"


@contextmanager
def hidden() -> Iterator[None]:
    """No status line inside."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


def clock(seconds: float) -> str:
    """A time as a clock shows it, 0:07 or 1:02:03."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


class LineHandler(logging.StreamHandler):
    """Records on standard error, each in place of a status line that may stand there."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def format(self, record: logging.LogRecord) -> str:
        """The message; on a terminal what stood in the row is wiped first."""
        return (WIPE if self.stream.isatty() else "") + super().format(record)
