"""Where the things of a view are in the online store."""

META = b"\0view"  # before what is known of each view as a whole


def meta_key(space: str) -> bytes:
    """What is known of the view as a whole."""
    return META + bytes.fromhex(space)[:16]


def key_prefix(space: str) -> bytes:
    """Before every entity key of the view; behind the key b"\\0" is its state and b"\\1" its head."""
    return b"\1" + bytes.fromhex(space)[:8]
