"""Tell what went wrong: on stderr for people, as one JSON document on stdout for programs."""

import json
import os
import sys
import traceback
from typing import Any

from featreg.cli.terminal import counted
from featreg.errors import DefinitionError, FeatregError

INTERRUPTED = 130


def tell(error: BaseException, as_json: bool, debug: bool) -> int:
    """Say it, and give the exit code."""
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":  # typer's, when it asks something
        message = "interrupted; nothing is lost, and the same command goes on from there."
        return _say(_document("Interrupted", message, INTERRUPTED), as_json)
    if type(error).__name__ == "NoArgsIsHelpError":  # typer has printed the help already
        return 2
    if debug:
        traceback.print_exception(error)
    return _say(_describe(error, debug), as_json)


def _describe(error: BaseException, debug: bool) -> dict[str, Any]:
    name = type(error).__name__
    match error:
        case DefinitionError():
            files = {problem.file for problem in error.problems if problem.file}
            document = _document(
                name, counted(len(error.problems), "problem") + f" in {counted(len(files) or 1, 'file')}.", error.exit_code
            )
            return document | {"problems": [vars(problem) | {"text": str(problem)} for problem in error.problems]}
        case FeatregError():
            facts = {key: value for key, value in vars(error).items() if isinstance(value, (str, int, float, tuple, list))}
            return _document(name, str(error), error.exit_code) | {"facts": facts}
        case _ if hasattr(error, "format_message"):  # typer's own, whichever click it carries
            return _document("UsageError", f"{error.format_message().replace('Value error, ', '')}\n  See: {_help_of(error)}", 2)
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            return _document(name, f"{place}{error.strerror or error}.", 1)
    more = "" if debug else "\n  This is a mistake of featreg's. Run again with --debug and report what it prints."
    return _document(name, f"{name}: {error}{more}", 1)


def _help_of(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context is not None else 'featreg'} --help"


def _document(kind: str, message: str, code: int) -> dict[str, Any]:
    return {"kind": kind, "message": message, "exit_code": code}


def _say(document: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": document}, indent=2, default=str))
    else:
        mark = "\033[1;31merror:\033[0m" if _has_colours() else "error:"
        for problem in document.get("problems", ()):
            print(f"{mark} {problem['text']}", file=sys.stderr)
        lead = "" if "problems" in document or document["exit_code"] == INTERRUPTED else f"{mark} "
        print(f"{lead}{document['message']}", file=sys.stderr)
    return int(document["exit_code"])


def _has_colours() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
