"""What is exported is read by others: mlcroissant validates and reads a snapshot, the OpenLineage client takes a training set's run."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow.parquet as pq
from openlineage.client import event_v2
from openlineage.client.facet_v2 import column_lineage_dataset, dataset_version_dataset, schema_dataset
from openlineage.client.serde import Serde

from featreg.cli import main
from tests.shop import order
from tests.test_time_travel import made, shop_of


def test_mlcroissant_validates_a_snapshot_and_reads_its_rows(tmp_path: Path) -> None:
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        taken = registry.snapshot("orders").id
    assert main(["export", "croissant", taken, "--out", str(tmp_path / "orders.json"), "-C", str(tmp_path)]) == 0
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "orders.json"))
    assert not dataset.metadata.ctx.issues.errors
    rows = [row for number in range(3) for row in dataset.records(f"rows-{number}")]
    assert sorted(row_of(row)["cents"] for row in rows) == sorted([order(0, amount=0.1 * minute + 0.7)["cents"] for minute in range(5)] * 3)


def test_mlcroissant_validates_a_training_set_and_reads_its_rows(tmp_path: Path) -> None:
    """A file that was written to since is not told of with the hash that it had."""
    shop = shop_of(tmp_path)
    out = tmp_path / "train.parquet"
    with shop.open() as registry:
        identity = made(registry, out)
    assert main(["export", "croissant", identity[:12], "--out", str(tmp_path / "train.json"), "-C", str(tmp_path)]) == 0
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "train.json"))
    assert not dataset.metadata.ctx.issues.errors
    [row] = map(row_of, dataset.records("rows-0"))
    assert row["spent_1d"] == pq.read_table(out)["spent_1d"][0].as_py()
    pq.write_table(pq.read_table(out).slice(0, 0), out)
    assert main(["export", "croissant", identity, "-C", str(tmp_path)]) == 3


def row_of(row: Any) -> dict[str, Any]:
    return {name.rsplit("/", 1)[1]: value for name, value in row.items()}


def test_the_openlineage_client_takes_the_run(tmp_path: Path) -> None:
    """Built anew from our JSON by the client's own classes, which check it, the event is what we wrote."""
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        taken = registry.snapshot("orders").id
        identity = made(registry, tmp_path / "train.parquet")
    assert main(["export", "openlineage", identity, "--out", str(tmp_path / "run.json"), "-C", str(tmp_path)]) == 0
    said = json.loads((tmp_path / "run.json").read_text())
    parsed = event_v2.RunEvent(
        eventTime=said["eventTime"],
        eventType=event_v2.RunState[said["eventType"]],
        producer=said["producer"],
        run=event_v2.Run(runId=said["run"]["runId"]),
        job=event_v2.Job(namespace=said["job"]["namespace"], name=said["job"]["name"]),
        inputs=[event_v2.InputDataset(one["namespace"], one["name"], facets=_facets(one["facets"])) for one in said["inputs"]],
        outputs=[event_v2.OutputDataset(one["namespace"], one["name"], facets=_facets(one["facets"])) for one in said["outputs"]],
    )
    again = json.loads(Serde.to_json(parsed))
    assert again["inputs"][0]["facets"]["version"]["datasetVersion"] == taken == said["inputs"][0]["facets"]["version"]["datasetVersion"]
    lineage = again["outputs"][0]["facets"]["columnLineage"]["fields"]
    assert {one["field"] for one in lineage["spent_1d"]["inputFields"]} == {"amount", "customer", "bought_at"}
    for key in ("eventTime", "eventType", "producer", "run", "job"):
        assert {k: v for k, v in again[key].items() if v} == {k: v for k, v in said[key].items() if v} if isinstance(said[key], dict) else (
            again[key] == said[key]
        )


def _facets(said: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"version": dataset_version_dataset.DatasetVersionDatasetFacet(said["version"]["datasetVersion"])}
    if "schema" in said:
        fields = [schema_dataset.SchemaDatasetFacetFields(**one) for one in said["schema"]["fields"]]
        made["schema"] = schema_dataset.SchemaDatasetFacet(fields)
        lineage = {
            name: column_lineage_dataset.Fields([column_lineage_dataset.InputField(**field) for field in one["inputFields"]])
            for name, one in said["columnLineage"]["fields"].items()
        }
        made["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(lineage)
    return made


def test_the_run_is_sent_over_http(tmp_path: Path) -> None:
    received: list[tuple[str, Any]] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    shop = shop_of(tmp_path)
    with shop.open() as registry:
        identity = made(registry, tmp_path / "train.parquet")
    url = f"http://127.0.0.1:{server.server_port}"
    assert main(["export", "openlineage", identity, "--url", url, "-C", str(tmp_path)]) == 0
    server.shutdown()
    server.server_close()
    assert [path for path, _ in received] == ["/api/v1/lineage"] and received[0][1]["job"]["name"] == "training_set.model"
