"""The command line: `featreg VERB`.

Starting costs next to nothing: a verb imports what it needs when it runs.
Exit codes: 0 done · 1 error · 2 usage · 3 data · 4 refused by a gate · 5 differs · 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; errors are told, not raised, unless `--debug` is among the arguments."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        _do_without_pandas()
    try:
        from featreg.cli.app import app
        from featreg.cli.arguments import hoist_globals
        from featreg.cli.interrupt import every_ctrl_c

        given = hoist_globals(given)
        with every_ctrl_c():
            code = app(args=given, prog_name="featreg", standalone_mode=False)
        if code == 130:  # typer's way to say that Ctrl-C was pressed
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        from featreg.cli.failure import tell

        return tell(error, as_json="--json" in given, debug="--debug" in given)


class _NoPandas:
    """A finder to which pandas is not installed, until there is PySpark, which asks for it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas" and "pyspark" not in sys.modules:
            raise ModuleNotFoundError("the command line does without pandas", name=name)


def _do_without_pandas() -> None:
    """pyarrow imports pandas, where it is, for the first array it makes: half a second of each command for what none of them uses."""
    sys.meta_path.insert(0, _NoPandas)  # type: ignore[arg-type]
