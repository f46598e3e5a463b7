"""Fill a spine through Spark Connect, on executors that are processes of their own, of which one is killed in the middle.

    python -m tests.spark_cluster REPOSITORY SPINE OUT

Connect has a client of its own, and a process that has a session of either kind has none of the other: so this is a program.
Its server is one that PySpark starts here, on a cluster of two executors of one core each, which speculate.
"""

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

import pyspark

from featreg.engines.java import use_java
from featreg.kernels import use_cache

CONF = {
    "spark.executor.memory": "512m", "spark.ui.enabled": "false", "spark.sql.session.timeZone": "Asia/Kolkata",
    "spark.executor.extraJavaOptions": "-Duser.timezone=America/New_York", "spark.speculation": "true",
    "spark.speculation.interval": "50ms", "spark.speculation.multiplier": "1.1", "spark.speculation.quantile": "0.3",
}  # fmt: skip


def executors() -> list[int]:
    """Those whose driver is below this process, by their command lines and their cores' workers."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "cmdline").read_bytes()
            is_ours = f"SPARK_HOME={os.environ['SPARK_HOME']}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if is_ours and b"CoarseGrainedExecutorBackend" in told:
            found.append(int(entry.name))
    return sorted(found)


def _is_at_work(executor: int) -> bool:
    """Whether it has a Python worker that computes."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] == "R" and b"pyspark.daemon" in (entry / "cmdline").read_bytes() and _is_below(int(fields[1]), executor):
                return True
        except OSError:
            continue
    return False


def _is_below(process: int, parent: int) -> bool:
    while process > 1:
        if process == parent:
            return True
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def _kill_one(over: threading.Event, killed: list[int]) -> None:
    while not over.wait(0.1) and not killed:
        for executor in executors():
            if _is_at_work(executor):
                os.kill(executor, signal.SIGKILL)
                killed.append(executor)
                return


def _home(folder: Path) -> Path:
    """A Spark home as the wheel has it, in which executors may write."""
    for part in ("bin", "jars", "python", "sbin"):
        (folder / part).symlink_to(Path(pyspark.__file__).parent / part)
    return folder


def main(repository: str, spine: str, out: str) -> None:
    import featreg

    with tempfile.TemporaryDirectory() as folder:
        use_java(Path(folder))
        os.environ |= {"SPARK_HOME": str(_home(Path(folder))), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
        builder = pyspark.sql.SparkSession.builder.remote("local-cluster[2,1,1024]")
        for name, value in CONF.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
        over, killed = threading.Event(), list[int]()
        with featreg.open(repository, spark=session) as registry:
            assert registry.spark.storage.context is None, "this is no session of Spark Connect"
            killer = threading.Thread(target=_kill_one, args=(over, killed))
            killer.start()
            try:
                registry.training_set("world_set", spine, time="as_of", draft=True).write(out)
            finally:
                over.set()
                killer.join()
        print(f"killed {len(killed)} of 2 executors")
        session.stop()


if __name__ == "__main__":
    use_cache(Path(__file__).parent.parent / ".featreg")
    main(*sys.argv[1:])
