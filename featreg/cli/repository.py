"""`init`: write a small repository that checks, applies and gives a training set at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featreg.cli.arguments import Settings
from featreg.cli.terminal import escape, show
from featreg.errors import RefusedError

if TYPE_CHECKING:
    from rich.console import Console

DEFINITIONS = '''"""What a customer has been buying: an example to change, or to delete."""

from featreg import REALTIME, Entity, EventSource, FeatureSet, FeatureView, agg, derive

customer = Entity(name="customer", key={"customer_id": "BIGINT"}, description="Somebody who buys.")

orders = EventSource(
    name="orders",
    columns={
        "customer_id": "BIGINT",
        "ordered_at": "TIMESTAMP",
        "loaded_at": "TIMESTAMP",
        "product": "VARCHAR",
        "amount": "DOUBLE",
    },
    event_time="ordered_at",
    available="loaded_at",  # no feature sees an order before it was loaded
    description="One row per order.",
)

customer_orders = FeatureView(
    name="customer_orders",
    entity=customer,
    source=orders,
    freshness=REALTIME,
    features={
        "orders": agg.count().over("1d", "7d"),
        "spent": agg.sum("amount").over("7d"),
        "large_orders": agg.count(where="amount > 50").over("7d"),
        "last_product": agg.last("product"),
        "large_share_7d": derive("large_orders_7d / orders_7d"),
    },
    owner="you",
    description="What this customer ordered lately.",
)

order_model = FeatureSet(
    name="order_model",
    features=[customer_orders.all()],
    request={"basket": "DOUBLE"},
    derived={"basket_to_week": "basket / spent_7d"},
    owner="you",
    description="Will this customer order again?",
)
'''

PROFILE = """# Where data lives and what runs; never what a feature means.  Paths are relative to the repository.
engine = "duckdb"

[sources]
orders = "data/orders.csv"          # a path or glob: Parquet, CSV or JSON

[online]
store = "lmdb"
path = ".featreg/online"

[registry]
path = ".featreg/registry"
"""

ORDERS = """customer_id,ordered_at,loaded_at,product,amount
1,2024-03-01 09:00:00,2024-03-01 09:05:00,tea,12.50
2,2024-03-01 10:30:00,2024-03-01 10:35:00,kettle,64.00
1,2024-03-02 18:20:00,2024-03-02 18:25:00,cups,33.10
3,2024-03-03 07:45:00,2024-03-03 07:50:00,tea,12.50
1,2024-03-05 12:00:00,2024-03-06 12:00:00,kettle,64.00
2,2024-03-05 21:15:00,2024-03-05 21:20:00,tea,12.50
3,2024-03-06 08:10:00,2024-03-06 08:15:00,,80.25
1,2024-03-07 09:00:00,2024-03-07 09:05:00,tea,12.50
"""

SPINE = """customer_id,asked_at,basket
1,2024-03-05 18:00:00,20.00
1,2024-03-07 18:00:00,20.00
2,2024-03-07 18:00:00,5.50
3,2024-03-07 18:00:00,41.00
4,2024-03-07 18:00:00,9.99
"""

FILES = {
    "features/example.py": DEFINITIONS,
    "conf/local.toml": PROFILE,
    "data/orders.csv": ORDERS,
    "data/asked.csv": SPINE,
    ".gitignore": ".featreg/\n__pycache__/\n",
}
NEXT = (
    "featreg check",
    "featreg apply",
    "featreg training-set order_model --spine data/asked.csv --time asked_at --out train.parquet",
    "featreg materialize --to 2024-03-08",
    "featreg get order_model customer_id=1 basket=20 --at 2024-03-08",
)


def init(context: typer.Context, directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where.")] = Path(".")) -> None:
    """Write a small working repository: definitions, a profile and a little data.  Overwrites nothing."""
    settings: Settings = context.obj
    folder = directory.expanduser()
    written = write_example(folder)

    def render(console: "Console") -> None:
        for name in written:
            console.print(f"  [green]written[/green]  {escape(str(folder / name))}", soft_wrap=True)
        lead = "" if folder.resolve() == Path.cwd() else f"  cd {escape(str(folder))}\n"
        console.print("\nNext:\n" + lead + "\n".join(f"  {line}" for line in NEXT), soft_wrap=True)

    show(settings, {"directory": str(folder.resolve()), "written": written, "next": list(NEXT)}, render)


def write_example(folder: Path) -> list[str]:
    """Write the files; a `.gitignore` that is there stays.

    Raises: RefusedError naming every file that is in the way; then nothing was written.
    """
    if (folder / "features").is_dir() and any((folder / "features").iterdir()):
        raise RefusedError(f"{folder / 'features'} is there already, and init overwrites nothing.\n  Name another folder: featreg init DIR")
    taken = [name for name in FILES if name != ".gitignore" and (folder / name).exists()]
    if taken:
        raise RefusedError(
            f"{', '.join(taken)} in {folder} would be overwritten, and nothing was written.\n  Name another folder: featreg init DIR"
        )
    written = [name for name in FILES if not (folder / name).exists()]
    for name in written:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name], encoding="utf-8")
    return written
