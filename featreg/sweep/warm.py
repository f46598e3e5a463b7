"""Compile kernels on two cores: what is compiled for the first time is most of a first run.

numba compiles under one lock, so a second process compiles a half of what is missing into
the same cache meanwhile.  Should it fail, this process compiles that half too when it gets there.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numba
from numba import types

from featreg.algebra.frame import CHUNK, PROGRAM, ROW, STATE
from featreg.algebra.schedule import COUNT, EXTREME, INTEGER_SUM, MOMENTS, RANKED, SPANS, SUM, TALLY, WIDE_MOMENTS
from featreg.compile.program import SweepProgram
from featreg.sweep.execute import KERNELS, advance, answer
from featreg.sweep.head import count_rows, lay_out_rows, pack_heads
from featreg.sweep.keep import dump_keys, load_keys

_WORD, _COUNTS = types.int64, types.Array(types.int64, 2, "C")
_ENTRIES = {
    "advance": (advance, (_WORD,)),
    "answer": (answer, (_WORD, ROW, ROW, ROW, ROW, ROW, ROW, _WORD)),
    "load_keys": (load_keys, (PROGRAM, STATE, ROW, ROW, ROW)),
    "dump_keys": (dump_keys, (PROGRAM, STATE, _WORD, _WORD, _WORD, _WORD, ROW, ROW)),
    "lay_out_rows": (lay_out_rows, (ROW, ROW, ROW, CHUNK)),
    "count_rows": (count_rows, (ROW, ROW, ROW, _WORD, _COUNTS)),
    "pack_heads": (pack_heads, (ROW, ROW, ROW, ROW, _WORD, ROW, CHUNK, ROW, ROW)),
}
BACKFILL, WRITE, READ = ("advance",), ("advance", "load_keys", "dump_keys", "lay_out_rows", "count_rows", "pack_heads"), ("answer",)
# About how many seconds each takes, for a fair half.
_KERNEL_SECONDS = {COUNT: 0.3, SUM: 2.7, INTEGER_SUM: 1.1, EXTREME: 0.4, RANKED: 1.8, MOMENTS: 2.2, WIDE_MOMENTS: 1.6, TALLY: 2.6}
_KERNEL_SECONDS |= {SPANS: 1.0}
_SECONDS = {"advance": 2.6, "answer": 5.5, "load_keys": 1.3, "dump_keys": 2.3, "lay_out_rows": 0.3, "count_rows": 0.2, "pack_heads": 1.0}
_SECONDS |= {KERNELS[kind].function.__name__: seconds for kind, seconds in _KERNEL_SECONDS.items()}
_START_SECONDS = 1.0  # of another process
_BY_NAME = {kernel.function.__name__: kernel for kernel in KERNELS.values()}


def compile_for(entries: Sequence[str], programs: Iterable[SweepProgram]) -> None:
    """See that these entries and all kernels of the programs are compiled; what never was is compiled on two cores."""
    kinds = sorted({kind for program in programs for kind in program.kinds})
    mine, theirs = _halves(_missing([*(KERNELS[kind].function.__name__ for kind in kinds), *entries]))
    if not theirs or (os.cpu_count() or 1) < 2:
        return
    silent = subprocess.DEVNULL
    second = subprocess.Popen([sys.executable, "-m", "featreg.sweep.warm", *theirs], stdin=silent, stdout=silent, stderr=silent)
    try:
        for name in mine:
            _compile(name)
        second.wait()
    finally:
        second.kill()
        second.wait()


def _compile(name: str) -> None:
    if name in _BY_NAME:
        _BY_NAME[name].compile()
    else:
        function, signature = _ENTRIES[name]
        function.compile(signature)


def _missing(names: Sequence[str]) -> list[str]:
    """Those without a file in numba's cache; none when it keeps its files beside the sources."""
    if not numba.config.CACHE_DIR:
        return []
    there = {path.name.split("-")[0].rpartition(".")[2] for path in Path(numba.config.CACHE_DIR).rglob("*.nbi")}
    return [name for name in names if name not in there]


def _halves(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """What this process compiles and what the second does: the longest first, each to who is done sooner."""
    mine: list[str] = []
    theirs: list[str] = []
    my_seconds, their_seconds = 0.0, _START_SECONDS
    for name in sorted(names, key=lambda name: -_SECONDS[name]):
        if my_seconds <= their_seconds:
            mine.append(name)
            my_seconds += _SECONDS[name]
        else:
            theirs.append(name)
            their_seconds += _SECONDS[name]
    return mine, theirs


if __name__ == "__main__":
    for _name in sys.argv[1:]:
        _compile(_name)
