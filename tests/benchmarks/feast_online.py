"""Feast's side of the online benchmark, run by the Python of a venv that has Feast: the same vectors in SQLite, read for the same keys.

    PYTHON feast_online.py VECTORS.parquet KEYS.parquet    # user_id and the features of one row a user; the user_ids to ask for

Prints JSON: seconds of each read of one key, and of each of a hundred.
"""

import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

os.environ["FEAST_USAGE"] = "False"

FEW, MANY = 2_000, 200  # reads of one key, and of a hundred


def feature_store(root: Path, names: list[str], whole: set[str]):
    """A store of two views of these features, as a user of Feast writes it.  whole: those that are integers."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64

    (root / "none.parquet").write_bytes(b"")
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = FileSource(path=str(root / "none.parquet"), timestamp_field="event_timestamp")
    views = [
        FeatureView(
            name=f"view{number}", entities=[user], ttl=timedelta(days=3650), source=source, online=True,
            schema=[Field(name="user_id", dtype=Int64), *(Field(name=one, dtype=Int64 if one in whole else Float64) for one in part)],
        )
        for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]))
    ]  # fmt: skip
    config = RepoConfig(
        project="bench", registry=str(root / "registry.db"), provider="local", entity_key_serialization_version=3,
        online_store={"type": "sqlite", "path": str(root / "online.db")},
    )  # fmt: skip
    store = FeatureStore(config=config)
    store.apply([user, *views])
    return store, views


def taken(call, times: int) -> list[float]:
    """Seconds of each call, after some that do not count; featreg's side is timed by this too."""
    for number in range(50):
        call(number)
    found = []
    for number in range(times):
        began = time.perf_counter()
        call(number)
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    import pandas

    vectors, keys = pandas.read_parquet(sys.argv[1]), pandas.read_parquet(sys.argv[2])["user_id"].tolist()
    names = [name for name in vectors.columns if name != "user_id"]
    whole = {name for name in names if vectors[name].dtype.kind == "i"}
    vectors["event_timestamp"] = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as scratch:
        store, views = feature_store(Path(scratch), names, whole)
        for view in views:
            columns = ["user_id", "event_timestamp", *(field.name for field in view.features)]
            store.write_to_online_store(view.name, df=vectors[columns])
        asked = [f"{view.name}:{field.name}" for view in views for field in view.features]

        def read(some: list[int]) -> dict:
            return store.get_online_features(features=asked, entity_rows=[{"user_id": key} for key in some]).to_dict()

        found = read(keys[:1])
        row = vectors[vectors["user_id"] == keys[0]].iloc[0]
        if len(found) != 1 + len(names) or any(found[name] != [row[name]] for name in names if not pandas.isna(row[name])):
            raise SystemExit(f"Feast answered something else: {found}")
        one = taken(lambda number: read([keys[number % len(keys)]]), FEW)
        hundred = taken(lambda number: read(keys[100 * (number % (len(keys) // 100)) :][:100]), MANY)
    print(json.dumps({"one": one, "hundred": hundred}))


if __name__ == "__main__":
    main()
