"""Hear every Ctrl-C: Python drops one that strikes in a destructor or in the callback of a weak reference.

A thread that ends, a table that is freed: for a moment the interpreter is in code whose errors nobody
gets, and prints "Exception ignored".  What was dropped there is pressed again, until it comes out.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_AGAIN_AFTER = 0.01  # seconds: when it would strike at once, it would strike in the same destructor


@contextmanager
def every_ctrl_c() -> Iterator[None]:
    """Within this, a KeyboardInterrupt that Python drops is raised anew in the main thread; other dropped errors are told as ever."""
    before = sys.unraisablehook

    def told(dropped: "UnraisableHookArgs") -> None:
        if dropped.exc_type is KeyboardInterrupt:
            _press_again()
        else:
            before(dropped)

    sys.unraisablehook = told
    try:
        yield
    finally:
        sys.unraisablehook = before


def _press_again() -> None:
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(_AGAIN_AFTER, signal.pthread_kill, (main, signal.SIGINT))
    timer.daemon = True
    timer.start()
