"""The embedded PostgreSQL: a private cluster in ``.two-tower/`` of a working directory.

It listens on a Unix socket that only its owner (and root) can reach, so local connections need no password. The
directory contains its databases, its log and the packages of its Python; removing the directory removes everything.

``python -m two_tower.server.embedded`` only installs the packages of the server's Python.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from two_tower.database import open_connection
from two_tower.errors import UserError
from two_tower.paths import DATABASE_FILES
from two_tower.progress import Say
from two_tower.server.account import Account, run_as
from two_tower.server.contract import NEWEST, OLDEST
from two_tower.server.installation import REMEDY, Installation, installations
from two_tower.server.packages import are_complete, install_packages
from two_tower.server.resources import resources
from two_tower.settings import Settings

DATABASE = "two_tower"
ROLE = "postgres"
HOME = ".two-tower"

_SHARED_HOMES = Path("/var/lib/two-tower")
_SOCKET_LIMIT = 107  # bytes of sockaddr_un.sun_path, less the terminating zero
_START_SECONDS = 300  # a crash recovery may take minutes


class Server:
    """The cluster of a working directory.

    ``durable=False`` is for tests: writes are several times faster, but a crash of the machine may lose the cluster.
    """

    def __init__(self, directory: Path | str = ".", *, durable: bool = True) -> None:
        self.directory = Path(directory).resolve()
        self.durable = durable
        self._link = self.directory / HOME

    # -------------------------------------------------------------------------------------------- state

    @property
    def home(self) -> Path:
        """The directory with all files of this cluster: ``.two-tower``, or the target of that link."""
        return self._link.resolve()

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def running(self) -> bool:
        """Whether a postmaster of this cluster is alive. A pid file proves nothing: pids are reused."""
        return self._postmaster() is not None

    @property
    def dsn(self) -> str:
        """Connection string of database ``two_tower`` over the socket, as superuser ``postgres``."""
        lines = self._pid_lines()
        if not self.running or len(lines) < 5:
            raise UserError(f"no embedded server is running in {self.directory}", "start it with `two-tower up`")
        return f"postgresql://{ROLE}@/{DATABASE}?host={quote(lines[4], safe='')}&port={lines[3]}"

    @property
    def tcp_dsn(self) -> str | None:
        """The same over 127.0.0.1 with a password, if the server was started with a port."""
        lines = self._pid_lines()
        if not self.running or len(lines) < 6 or not lines[5].strip():
            return None
        password = (self.home / "password").read_text().strip()
        return f"postgresql://{ROLE}:{password}@127.0.0.1:{lines[3]}/{DATABASE}"

    @property
    def installation(self) -> Installation:
        """The PostgreSQL that created this cluster or, for a new one, the preferred one. UserError if there is none."""
        found = installations()
        if (self.data / "PG_VERSION").exists():
            made_by = int((self.data / "PG_VERSION").read_text())
            for candidate in found:
                if candidate.version == made_by:
                    return candidate
            raise UserError(
                f"{self.data} was made by PostgreSQL {made_by}, which is not installed",
                f"install postgresql-{made_by}, or remove {self._link} to start afresh",
            )
        if not found:
            raise UserError(f"PostgreSQL {OLDEST} to {NEWEST} is not installed", REMEDY)
        missing = sorted({"vector", "plpython3u"} - found[0].extensions)
        if missing:
            raise UserError(f"PostgreSQL {found[0].version} lacks extension {' and '.join(missing)}", REMEDY)
        return found[0]

    # -------------------------------------------------------------------------------------------- actions

    def start(self, port: int | None = None, say: Say = lambda _: None) -> str:
        """Start the cluster, creating it if necessary, and return its DSN once it accepts connections.

        Does nothing if it is running. ``port`` also opens 127.0.0.1 with a password. ``say`` is told of slow steps.
        """
        installation = self.installation  # before anything is created, so that a failure leaves nothing behind
        with self._locked():
            if not self.running:
                packages = self._provide_packages(installation, say)
                if not (self.data / "PG_VERSION").exists():
                    say(f"creating a PostgreSQL {installation.version} cluster in {self._link}")
                    self._create(installation)
                sockets = self._socket_directory(port or 5432)
                self._clear_remains(sockets)
                self._configure(installation, port, sockets)
                self._launch(installation, packages)
                if port:
                    self._set_password()
            elif port and not (self.tcp_dsn and self._pid_lines()[3] == str(port)):
                raise UserError(f"the server is running without port {port}", "stop it first: `two-tower down`")
            self._wait_until_ready()
            return self.dsn

    def stop(self) -> bool:
        """Stop the cluster, ending its connections. False if it was not running."""
        if not self.running:
            return False
        with self._locked():
            if not self.running:
                return False
            sockets = Path(self._pid_lines()[4])
            program = self.installation.bindir / "pg_ctl"
            command: list[str | Path] = [program, "stop", "-D", self.data, "-m", "fast", "-w", "-t", "120"]
            result = run_as(self._account(), command, cwd=self.home)
            if result.returncode:
                raise UserError(f"the server did not stop: {result.stderr.strip()}", f"its log: {self.log}")
            if sockets.parent != self.home:
                with suppress(OSError):
                    sockets.rmdir()
            return True

    def provide_packages(self, say: Say = lambda _: None) -> Path:
        """Install numpy and onnxruntime for the server's Python if they are missing; returns their directory."""
        with self._locked():
            return self._provide_packages(self.installation, say)

    # -------------------------------------------------------------------------------------------- directory

    def _account(self) -> Account | None:
        return Account.for_server(self.data)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lets one process at a time create, start or stop this cluster. Creates ``home``."""
        self._make_home()
        try:
            handle = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except PermissionError as error:
            owner = pwd.getpwuid(self.home.stat().st_uid).pw_name
            raise UserError(f"{self._link} belongs to {owner}", f"run this as {owner}") from error
        try:
            if os.geteuid() == 0:
                os.fchown(handle, self.home.stat().st_uid, -1)
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _make_home(self) -> None:
        """Create ``.two-tower``; a link to a shared place if the server's user has no access here (as in ``/root``)."""
        account = self._account()
        if self._link.is_symlink() and not self._link.exists():
            self._link.unlink()  # its target was removed
        if self._link.exists():
            if account and not account.can_enter(self.home):
                raise UserError(
                    f"the server would run as user {account.name}, who cannot enter {self.home}",
                    f"run this as {pwd.getpwuid(self.home.stat().st_uid).pw_name}, or remove {self._link}",
                )
        elif account is None or account.can_enter(self.directory):
            self._link.mkdir(exist_ok=True)
            if account:
                self._link.chmod(0o755)
        else:
            _SHARED_HOMES.mkdir(mode=0o755, parents=True, exist_ok=True)
            home = Path(tempfile.mkdtemp(prefix=f"{self.directory.name}-", dir=_SHARED_HOMES))
            home.chmod(0o755)
            try:
                self._link.symlink_to(home)
            except FileExistsError:  # another process was first
                home.rmdir()

    def _private(self, directory: Path) -> Path:
        """Create a directory that only the server can access."""
        directory.mkdir(mode=0o700, exist_ok=True)
        account = self._account()
        owner = account.uid if account else os.geteuid()
        if account and directory.stat().st_uid == 0:
            os.chown(directory, account.uid, account.gid)
        if directory.is_symlink() or directory.stat().st_uid != owner:
            raise UserError(f"{directory} belongs to someone else", "remove it")
        directory.chmod(0o700)
        return directory

    def _write(self, path: Path, text: str) -> None:
        """Write a file that belongs to the server's user, atomically, whoever owned the previous one."""
        draft = path.with_name(path.name + ".new")
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(text)
        if account := self._account():
            os.chown(draft, account.uid, account.gid)
        draft.rename(path)

    def _socket_directory(self, port: int) -> Path:
        """``run/`` in ``home``; a short name under ``/tmp`` if that is too long for a socket, or invalid for libpq."""
        here = self.home / "run"
        if len(os.fsencode(here / f".s.PGSQL.{port}")) <= _SOCKET_LIMIT and "," not in str(here):
            return self._private(here)
        account = self._account()
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return self._private(Path("/tmp") / f"two-tower-{account.uid if account else os.geteuid()}-{digest}")  # noqa: S108

    # -------------------------------------------------------------------------------------------- Python

    def _provide_packages(self, installation: Installation, say: Say) -> Path:
        """The directory for the server's PYTHONPATH: as set, in ``home`` or in the repository; or else created now."""
        chosen = Settings().server_packages
        if chosen:
            return chosen
        if installation.python is None:
            raise UserError(f"cannot tell the Python version of PostgreSQL {installation.version}'s PL/Python", REMEDY)
        name = f"site-packages-{installation.python}"
        account = self._account()
        here = self.home / name
        for candidate in (here, (DATABASE_FILES / HOME).resolve() / name):
            if are_complete(candidate) and (account is None or account.can_enter(candidate)):
                return candidate
        say(f"installing numpy and onnxruntime for the server's Python {installation.python}")
        install_packages(here, installation.python)
        return here

    def _environment(self, packages: Path) -> dict[str, str]:
        env = {"PYTHONPATH": str(packages), "PYTHONNOUSERSITE": "1", "TZ": "UTC"}
        # A backend multiplies no matrices with numpy, and starting threads takes a quarter of the time to load it.
        env["OPENBLAS_NUM_THREADS"] = "1"
        version = packages.name.removeprefix("site-packages-").replace(".", "")
        if not (packages / "onnxruntime" / "__pycache__" / f"__init__.cpython-{version}.pyc").exists():
            env["PYTHONPYCACHEPREFIX"] = str(self._private(self.home / "pycache"))  # or every backend would recompile
        return env

    # -------------------------------------------------------------------------------------------- life cycle

    def _create(self, installation: Installation) -> None:
        """initdb and ``create database``, under a temporary name, so that an interruption leaves no broken cluster."""
        draft = self.home / "data.new"
        if draft.exists():
            shutil.rmtree(draft)
        account = self._account()
        self._private(draft)
        command: list[str | Path] = [
            installation.bindir / "initdb", "-D", draft.name, "-U", ROLE, "--encoding=UTF8", "--locale=C.UTF-8",
            "--auth-local=trust", "--auth-host=scram-sha-256", *([] if self.durable else ["--no-sync"]),
        ]  # fmt: skip
        result = run_as(account, command, cwd=self.home)
        if result.returncode == 0:
            # A single-user backend, so that pg_cron finds its database at the first start. Only the owner needs
            # temporary objects there (docs/security.md).
            command = [installation.bindir / "postgres", "--single", "-D", draft.name, "template1"]
            statements = f"create database {DATABASE}\nrevoke temporary on database {DATABASE} from public\n"
            result = run_as(account, command, cwd=self.home, text=statements)
        if result.returncode:
            raise UserError(f"creating the cluster failed: {result.stderr.strip()}")
        with (draft / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude 'two-tower.conf'\n")
        draft.rename(self.data)

    def _configure(self, installation: Installation, port: int | None, sockets: Path) -> None:
        settings = {
            "listen_addresses": "127.0.0.1" if port else "",
            "port": str(port or 5432),
            "unix_socket_directories": '"' + str(sockets).replace('"', '""') + '"',
            **resources(self.durable),
        }
        if "pg_cron" in installation.extensions:
            # Background workers then need neither TCP nor a password to connect.
            settings |= {
                "shared_preload_libraries": "pg_cron",
                "cron.database_name": DATABASE,
                "cron.use_background_workers": "on",
            }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        quoted = (f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.items())
        note = "# Written by `two-tower up` at each start; `alter system` overrides it.\n"
        self._write(self.data / "two-tower.conf", note + "".join(quoted))

    def _launch(self, installation: Installation, packages: Path) -> None:
        account = self._account()
        if not self.log.exists():
            self._write(self.log, "")
        written = self.log.stat().st_size
        # Relative names: pg_ctl passes them to a shell, and a directory's name may contain quotes or dollars.
        command: list[str | Path] = [
            installation.bindir / "pg_ctl", "start", "-D", self.data.name, "-l", self.log.name, "-w",
            "-t", str(_START_SECONDS),
        ]  # fmt: skip
        result = run_as(account, command, cwd=self.home, env=self._environment(packages))
        if result.returncode:
            with self.log.open(errors="replace") as log:
                log.seek(written)
                said = log.read().strip().splitlines()[-8:]
            raise UserError("PostgreSQL did not start:\n" + "\n".join(said), f"its log: {self.log}")

    def _set_password(self) -> None:
        """Set a password for 127.0.0.1, generated once and stored beside the cluster."""
        from psycopg import sql

        path = self.home / "password"
        if not path.exists():
            self._write(path, secrets.token_urlsafe(18) + "\n")
        with open_connection(self.dsn, autocommit=True, as_owner=False) as connection:
            password = sql.Literal(path.read_text().strip())
            connection.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(ROLE), password))

    def _wait_until_ready(self) -> None:
        """Wait for a server that another process started, and which may still be in crash recovery."""
        deadline = time.monotonic() + _START_SECONDS
        while not any(line.strip() == "ready" for line in self._pid_lines()[7:8]):
            if not self.running or time.monotonic() > deadline:
                raise UserError("PostgreSQL is not getting ready", f"its log: {self.log}")
            time.sleep(0.05)

    # -------------------------------------------------------------------------------------------- processes

    def _pid_lines(self) -> list[str]:
        """postmaster.pid: pid, data directory, start time, port, socket directory, address, shared memory, status."""
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError as error:
            owner = pwd.getpwuid(self.data.stat().st_uid).pw_name
            raise UserError(f"the server in {self.directory} belongs to {owner}", f"run this as {owner}") from error

    def _postmaster(self) -> int | None:
        """Pid of the live postmaster: the process in the pid file, if the cluster is its working directory."""
        lines = self._pid_lines()
        if not lines or not lines[0].strip().isdigit():
            return None
        pid = int(lines[0])
        return pid if _works_in(Path("/proc") / str(pid), self.data) else None

    def _clear_remains(self, sockets: Path) -> None:
        """After a kill: wait for orphaned backends, then remove the pid file and sockets.

        PostgreSQL removes those of a dead pid, but takes any live process for a postmaster: another one that got the
        pid since, or a zombie, which stays in containers without an init.
        """
        if not (self.data / "postmaster.pid").exists():
            return
        deadline = time.monotonic() + 30
        while any(_works_in(process, self.data) for process in Path("/proc").glob("[0-9]*")):
            if time.monotonic() > deadline:
                raise UserError(f"processes of a killed server still work in {self.data}", f"see: fuser -v {self.data}")
            time.sleep(0.05)
        for remains in [*sockets.glob(".s.PGSQL.*"), self.data / "postmaster.pid"]:
            remains.unlink(missing_ok=True)


def _works_in(process: Path, directory: Path) -> bool:
    """Whether a process below ``/proc`` has this working directory; not if it ended or is another user's.

    Files are compared and not their names: a process in another mount namespace may know the directory by another one.
    """
    try:
        return (process / "cwd").samefile(directory)
    except OSError:
        return False


if __name__ == "__main__":
    try:
        Server().provide_packages(say=lambda line: print(line, file=sys.stderr))  # noqa: T201
    except UserError as error:
        sys.exit(str(error))
