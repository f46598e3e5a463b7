"""Let no Ctrl-C strike while numba compiles machine code or takes it from its cache.

LLVM calls back into Python there, and an exception in the callback ends the process with a
segmentation fault.  What was pressed meanwhile comes out when the function at hand is done.
"""

import signal
import threading
from types import FrameType

from numba.core import event


class _Undisturbed(event.Listener):
    """Told when numba begins to wait for its compiler lock and when it has let it go, nested as calls are."""

    def __init__(self) -> None:
        self.depth, self.pressed = 0, False
        self.handler: object = None

    def on_start(self, event: event.Event) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Ctrl-C strikes in the main thread alone
        if self.depth == 0:
            self.handler = signal.signal(signal.SIGINT, self._note)
        self.depth += 1

    def on_end(self, event: event.Event) -> None:
        if threading.current_thread() is not threading.main_thread() or self.depth == 0:
            return
        self.depth -= 1
        if self.depth == 0:
            pressed, self.pressed = self.pressed, False
            signal.signal(signal.SIGINT, signal.SIG_DFL if self.handler is None else self.handler)  # type: ignore[arg-type]
            if pressed:
                signal.raise_signal(signal.SIGINT)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True


event.register("numba:compiler_lock", _Undisturbed())
