"""Compile kernels on two cores: what is compiled for the first time is most of a first run.

numba compiles under one lock, so a second process compiles into the same cache meanwhile.
They take what is left of one list from its two ends.  Should the second fail, this process
compiles what it had begun when it gets there.
"""

import gc
import os
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import numba
from numba import types

from featreg.algebra.frame import BYTES_TABLE, CHUNK, ROW, TABLE
from featreg.expressions import run_finish
from featreg.kernels import compiler
from featreg.sweep.execute import KERNELS, advance, answer
from featreg.sweep.head import count_rows, lay_out_rows, pack_heads
from featreg.sweep.keep import dump_keys, load_keys

if TYPE_CHECKING:
    from subprocess import Popen

    from featreg.compile.program import SweepProgram

_WORD, _COUNTS = types.int64, types.Array(types.int64, 2, "C")
_ENTRIES = {
    "advance": (advance, (_WORD,)),
    "answer": (answer, (_WORD, ROW, ROW, ROW, ROW, ROW, ROW, _WORD)),
    "load_keys": (load_keys, (_WORD, ROW, ROW, ROW)),
    "dump_keys": (dump_keys, (_WORD, _WORD, _WORD, _WORD, _WORD, ROW, ROW)),
    "lay_out_rows": (lay_out_rows, (ROW, ROW, ROW, CHUNK)),
    "count_rows": (count_rows, (ROW, ROW, ROW, _WORD, _COUNTS)),
    "pack_heads": (pack_heads, (ROW, ROW, ROW, ROW, _WORD, ROW, CHUNK, ROW, ROW)),
    "run_finish": (run_finish, (TABLE, ROW, TABLE, BYTES_TABLE, _WORD, _WORD)),
}
BACKFILL, WRITE, READ = ("advance",), ("advance", "load_keys", "dump_keys", "lay_out_rows", "count_rows", "pack_heads"), ("answer",)
FINISH = ("run_finish",)  # where features are derived
_BY_NAME = {kernel.function.__name__: kernel for kernel in KERNELS.values()}
# Kin stand together, for one process to compile what they share once, and the short ones in the middle.
_KIN = (
    *("advance", "load_keys", "lay_out_rows", "answer", "dump_keys", "pack_heads", "run_finish", "write_spans", "count_rows"),
    *("run_counts", "run_tally", "run_ranked", "run_extremes", "run_integer_sums", "run_wide_moments", "run_moments", "run_sums"),
)


def compile_for(entries: Sequence[str], programs: "Iterable[SweepProgram]") -> None:
    """See that these entries and all kernels of the programs are compiled; what never was is compiled on two cores."""
    kinds = sorted({kind for program in programs for kind in program.kinds})
    missing = _missing([*(KERNELS[kind].function.__name__ for kind in kinds), *entries])
    if len(missing) < 2 or (os.cpu_count() or 1) < 2:
        return
    left = deque(sorted(missing, key=_KIN.index))
    second = compiler()
    feeder = Thread(target=_feed, args=(second, left), daemon=True)
    feeder.start()
    try:
        with suppress(IndexError):
            while True:
                _compile(left.popleft())
        feeder.join()
    finally:
        second.kill()
        second.wait()


def _feed(second: "Popen[str]", left: deque[str]) -> None:
    """Hand the second process one name after the other; it says so when it has started, and whenever it is done with one."""
    assert second.stdin is not None and second.stdout is not None
    with suppress(IndexError, BrokenPipeError):
        while second.stdout.readline():
            second.stdin.write(f"{left.pop()}\n")
    with suppress(BrokenPipeError):
        second.stdin.close()


def _compile(name: str) -> None:
    """Without collecting garbage meanwhile, which numba makes little of: a tenth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        if name in _BY_NAME:
            _BY_NAME[name].compile()
        else:
            function, signature = _ENTRIES[name]
            function.compile(signature)
    finally:
        if collects:
            gc.enable()


def _missing(names: Sequence[str]) -> list[str]:
    """Those without a file in numba's cache; none when it keeps its files beside the sources."""
    if not numba.config.CACHE_DIR:
        return []
    there = {path.name.split("-")[0].rpartition(".")[2] for path in Path(numba.config.CACHE_DIR).rglob("*.nbi")}
    return [name for name in names if name not in there]


if __name__ == "__main__":
    print(flush=True)
    for _line in sys.stdin:
        _compile(_line.strip())
        print(flush=True)
