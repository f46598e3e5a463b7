"""What was done is told, view by view, with what it cost; a draft tells nobody, and a folder that cannot be written to undoes nothing."""

import json
from pathlib import Path

import pytest

from featreg.canonical import file_id
from featreg.session.receipts import RECEIPT
from tests.shop import WHOLE_SHOP, Shop, at, order, spine_of

ANN = [{"customer": "ann"}]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, WHOLE_SHOP).applied()
    shop.put("one", [order(10), order(20), order(30, "bob")])
    return shop


def test_apply_materialize_and_written_training_sets_leave_receipts(shop: Shop) -> None:
    with shop.open() as registry:
        (applied,) = registry.events.read(RECEIPT)
        assert (applied.body["verb"], applied.body["generation"], applied.body["features"]) == ("apply", 1, 12)
        receipts = registry.materialize(to=at(60))
        registry.materialize(to=at(60))
        path = registry.training_set("model", spine_of(ANN, at(60)), time="as_of").write(shop.root / "out.parquet")
        registry.training_set("model", spine_of(ANN, at(60)), time="as_of", draft=True).write(shop.root / "draft.parquet")
    with shop.open() as registry:
        told = [event.body for event in registry.events.read(RECEIPT)]
        compiled = registry.applied().compiled
    assert [one["verb"] for one in told] == ["apply", *["materialize"] * 4, "training-set"]
    for one, receipt in zip(told[1:3], receipts):
        (view,) = one["views"]
        assert (view["view"], view["rows"], view["keys"], view["bytes"]) == (receipt.view, receipt.rows, receipt.keys, receipt.bytes)
        assert (view["rows"], view["keys"]) == (3, 2) and view["bytes"] > 0 < view["seconds"]
        assert view["id"] == compiled.views[view["view"]].id
    assert [one["views"][0]["rows"] for one in told[3:5]] == [0, 0]
    written = told[-1]
    assert (written["set"], written["rows"], written["bytes"], written["path"]) == ("model", 1, path.stat().st_size, str(path))
    manifest = path.with_name("out.parquet.manifest.json")
    assert written["manifest"] == file_id(manifest) and written["features"] == json.loads(manifest.read_text())["features"]
    assert [(one["view"], one["rows"]) for one in written["views"]] == [("recent", 3), ("daily", 0)]  # daily's first run is to come


def test_what_was_done_stands_when_its_receipt_cannot_be_written(shop: Shop) -> None:
    events = shop.root / ".featreg" / "events"
    for path in events.iterdir():
        path.unlink()
    events.rmdir()
    events.write_text("in the way")
    with shop.open() as registry, pytest.warns(UserWarning, match="what was done stands, but its receipt was not written"):
        registry.materialize(to=at(60))
    with shop.open() as registry:
        assert registry.online("model", ANN[0], at=at(60)).values["n_1d"] == 2
