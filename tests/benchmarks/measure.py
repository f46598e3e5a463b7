"""Run one function in a fresh process, and say how long it took and how much memory it ever held.

A fresh process each time: no run inherits another's heap, caches or peak.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """seconds: what the function says its work took, imports and start of the process not counted.

    peak_bytes: the most resident memory the whole process ever held.  rows: of the last Parquet file among the
    function's arguments, which is what it wrote, else 0.  cpu_seconds: of all threads, for a machine that is shared.
    """

    seconds: float
    peak_bytes: int
    rows: int
    cpu_seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:7.2f} s  {self.peak_bytes / 1e9:5.2f} GB  {self.rows:>10,} rows  ({self.cpu_seconds:.1f} s of CPU)"


def run_measured(module: str, function: str, *args: object, env: dict[str, str] | None = None) -> Measured:
    """Call `module.function(*args) -> seconds` in a fresh interpreter, from the same working directory.

    args: what JSON can carry; a Path goes as text.
    Raises: RuntimeError with the last lines of its stderr when the process fails.
    """
    call = json.dumps({"module": module, "function": function, "args": [str(arg) if isinstance(arg, Path) else arg for arg in args]})
    process = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.measure", call], capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    if process.returncode != 0:
        last = "\n".join(process.stderr.splitlines()[-15:])
        raise RuntimeError(f"{module}.{function} left with {process.returncode}:\n{last}")
    return Measured(**json.loads(process.stdout.splitlines()[-1]))


def peak_bytes() -> int:
    """This process's high-water mark of resident memory."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a child begins at what its parent held when it forked; VmHWM does not
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _rows_of(arguments: list) -> int:  # type: ignore[type-arg]
    import pyarrow.parquet as pq

    files = [argument for argument in arguments if isinstance(argument, str) and argument.endswith(".parquet") and Path(argument).is_file()]
    return pq.read_metadata(files[-1]).num_rows if files else 0


def _run_here(call: dict) -> Measured:  # type: ignore[type-arg]
    function = getattr(importlib.import_module(call["module"]), call["function"])
    before = time.process_time()
    seconds = function(*call["args"])
    cpu, peak = time.process_time() - before, peak_bytes()  # before rows are counted, which is not the function's work
    return Measured(seconds, peak, _rows_of(call["args"]), cpu)


if __name__ == "__main__":
    print(json.dumps(asdict(_run_here(json.loads(sys.argv[1])))))
