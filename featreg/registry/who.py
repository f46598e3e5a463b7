"""Sign what is written: who, on which machine, by which process."""

import os
import pwd
import socket
from functools import cache


def writer_name() -> str:
    """As `ann@laptop (pid 4242)`."""
    return f"{_user_and_host()} (pid {os.getpid()})"


@cache
def _user_and_host() -> str:
    """Found out once: an event is signed in less time than a look at the user database takes."""
    return f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    told = os.environ.get("USER") or os.environ.get("LOGNAME")
    if told:
        return told
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        return f"uid {os.getuid()}"
