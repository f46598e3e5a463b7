"""Take the port before anything is announced, so that a used one is an error of the person who chose it."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from featreg.errors import UsageError

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@contextmanager
def bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    """A socket for each address of the host, all on one port, bound and not yet listening.  port: 0 is a free one.

    Raises: UsageError when the host is not this machine, or the port is in use or not for this user.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise UsageError(f"there is no host '{host}'.\n  Give an address of this machine with --host, as 127.0.0.1.") from None
    absent: OSError | None = None
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            place = (address[0], sockets[0].getsockname()[1] if sockets else port, *address[2:])
            try:
                sockets.append(_bind(family, kind, protocol, place))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise _told(error, host, port) from None
                absent = error  # an address of a family that is not enabled here, beside others that are
            else:
                stack.enter_context(sockets[-1])
        if not sockets:
            raise _told(absent or OSError(errno.EADDRNOTAVAIL, ""), host, port)
        yield sockets


def _bind(family: int, kind: int, protocol: int, place: tuple) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(place)
    except OSError:
        made.close()
        raise
    made.set_inheritable(True)
    return made


def _told(error: OSError, host: str, port: int) -> UsageError:
    match error.errno:
        case errno.EADDRINUSE:
            return UsageError(f"port {port} of {host} is in use.\n  Give another with --port, or 0 for a free one.")
        case errno.EACCES:
            return UsageError(f"port {port} of {host} is not for this user.\n  Give one above 1023 with --port.")
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return UsageError(f"{host} is no address of this machine.\n  Give one with --host, as 127.0.0.1.")
    return UsageError(f"nothing can listen on port {port} of {host}: {error.strerror}.\n  Give others with --host and --port.")
