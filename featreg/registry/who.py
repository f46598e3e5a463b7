"""Sign what is written: who, on which machine, by which process."""

import os
import pwd
import socket


def writer_name() -> str:
    """As `ann@laptop (pid 4242)`."""
    return f"{_user()}@{socket.gethostname()} (pid {os.getpid()})"


def _user() -> str:
    told = os.environ.get("USER") or os.environ.get("LOGNAME")
    if told:
        return told
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        return f"uid {os.getuid()}"
