"""Hear every Ctrl-C, also one that is swallowed where it strikes.

Python drops it in a destructor and in the callback of a weak reference (a thread that ends is
enough), and libraries do while they look whether another library is there.  What was swallowed is
pressed again, in the main thread, until it comes out.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_DROPPED = 0.01  # seconds until what Python says it dropped is pressed again: at once it would strike in the same destructor
_SWALLOWED = 1.0  # seconds that a verb has to come to its end before it is pressed again


@contextmanager
def every_ctrl_c() -> Iterator[None]:
    """Within this a Ctrl-C comes out as KeyboardInterrupt wherever it strikes; other errors that Python drops are told as ever.

    An error that comes out after it was pressed is taken for its echo: libraries put errors of their own in its place.

    In a thread of its own, or where a program hears SIGINT in another way, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    heard, left, hook = threading.Event(), threading.Event(), sys.unraisablehook

    def pressed(number: int, frame: FrameType | None) -> None:
        heard.set()
        _press_again(_SWALLOWED, left)
        signal.default_int_handler(number, frame)

    def dropped(what: "UnraisableHookArgs") -> None:
        if what.exc_type is KeyboardInterrupt:
            _press_again(_DROPPED, left)
        else:
            hook(what)

    sys.unraisablehook = dropped
    signal.signal(signal.SIGINT, pressed)
    try:
        yield
    except Exception as error:
        if heard.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        left.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = hook


def _press_again(after: float, left: threading.Event) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        if not left.wait(after):
            signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=press, name="featreg Ctrl-C", daemon=True).start()
