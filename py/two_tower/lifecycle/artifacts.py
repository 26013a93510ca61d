"""The files of a model version, as a browser, another database or a notebook reads them.

``manifest.json`` names every other file of a version with its size and sha256, and is written last: a directory that
has one is complete. Published versions are side by side and never change, and ``current`` holds a copy of the current
one:

    URL/20260301T040000Z/user_tower.onnx, ..., manifest.json
    URL/current/user_tower.onnx, ..., manifest.json

The manifest of ``current`` is replaced last, and its "version" names the directory with the same files: a client that
reads them there sees one model, even while ``current`` is being copied. Users' vectors are published only on request.

URLs are ``file:///path`` and ``s3://bucket/prefix``. Credentials, region and endpoint of S3 come from the environment:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL (Supabase:
https://PROJECT.supabase.co/storage/v1/s3). Without them, a Supabase project's own variables do
(:func:`two_tower.supabase.storage`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString
from urllib.parse import unquote, urlsplit

import numpy as np
import polars as pl
import psycopg
from psycopg.conninfo import conninfo_to_dict

from two_tower import supabase
from two_tower.database import SNAPSHOT, without_password
from two_tower.errors import UserError
from two_tower.features import DIM, LIKE, NOPE, user_counts
from two_tower.lifecycle import registry
from two_tower.lifecycle.patience import patiently
from two_tower.progress import Progress
from two_tower.trainer.runs import NAME
from two_tower.writing import writing

if TYPE_CHECKING:
    from two_tower.features import TrainingData
    from two_tower.trainer.train import TrainedModel

MANIFEST = "manifest.json"
CURRENT = f"current/{MANIFEST}"
USERS = "user_embeddings.parquet"
RUNTIME = re.compile(r"ort[\w.-]*\.(wasm|mjs)")
"""Files that onnxruntime-web loads, stored beside the model. They are not part of the model."""
CONTENT_TYPES = {".wasm": "application/wasm", ".mjs": "text/javascript", ".json": "application/json"}
MODEL_FILES = registry.FILES
MUCH_FOR_A_BROWSER = 20_000_000
"""Bytes of user_tower.onnx above which ``model export`` prints its size: about 20,000 videos."""
DOCUMENTS = ("feature_schema.json", "normalizer.json", "metrics.json", "model_meta.json")

# A row of (uuid, halfvec) in a binary COPY: field count, then length and bytes of each field.
_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("l1", ">i4"),
        ("id", "V16"),
        ("l2", ">i4"),
        ("dim", ">i2"),
        ("unused", ">i2"),
        ("embedding", ">f2", DIM),
    ]
)
_HEADER = 19  # signature, flags, length of an extension


def vectors(connection: psycopg.Connection[Any], statement: LiteralString, version: str) -> pl.DataFrame:
    """``id`` (text), ``embedding`` (128 float32) of a query of (uuid, halfvec) whose one parameter is the version."""
    query = psycopg.sql.SQL(statement).format(psycopg.sql.Literal(version))
    packed = b"".join(_copy(connection, psycopg.sql.SQL("copy ({}) to stdout (format binary)").format(query)))
    rows = np.frombuffer(packed, _ROW, (len(packed) - _HEADER - 2) // _ROW.itemsize, _HEADER)
    hexes = [row.tobytes().hex() for row in rows["id"]]
    ids = [f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}" for h in hexes]
    return _vectors(np.array(ids, dtype=str), rows["embedding"], "id")


def _copy(connection: psycopg.Connection[Any], query: psycopg.sql.Composed) -> list[bytes]:
    with connection.cursor().copy(query) as copy:
        return [bytes(block) for block in copy]


def export(
    connection: psycopg.Connection[Any],
    version: str,
    directory: Path,
    max_video_features: int | None = None,
    *,
    users: bool = True,
    runtime: Sequence[Path] = (),
) -> list[Path]:
    """Write all files of ``version`` into ``directory``, ``manifest.json`` last; returns their paths.

    All come from one snapshot. A directory with a manifest is complete. With ``max_video_features``, the towers'
    vocabulary has at most that many videos: small files for a browser, whose vectors fit the version's index.
    Users' vectors are included only with ``users``; files of the ``runtime`` are copied beside the others.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MANIFEST).unlink(missing_ok=True)
    with connection.transaction():
        connection.execute(SNAPSHOT)
        written = [
            _write(directory / name, content)
            for name, content in _files(connection, version, max_video_features)
            if users or name != USERS
        ]
    written += [_write(directory / path.name, _read(path)) for path in runtime]
    return [*written, _close(directory, version, written)]


def _close(directory: Path, version: str, written: list[Path]) -> Path:
    """Writes the manifest of ``written``, which makes the directory complete."""
    entries = [
        {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in written
    ]
    return _write(directory / MANIFEST, _json({"version": version, "files": entries}))


def write_trained(
    model: TrainedModel, data: TrainingData, version: str, out: Path, addresses: Mapping[str, str]
) -> Path:
    """Writes the files of a model trained without a database to ``out/runs/VERSION``, to which ``out/latest`` links.

    They are those of :func:`export`, with vectors computed by the towers, but without a tower that is too large for
    ONNX. ``addresses`` are product URLs by item.
    Raises UserError if the run exists, or cannot be written.
    """
    from two_tower.trainer.runs import run_directory

    found = _trained(model, data, version)
    recency = model.schema.recency
    counts = user_counts(
        model.schema,
        data.item_counts,
        data.matrix(LIKE, recency=recency),
        data.matrix(NOPE, recency=recency),
        data.profile,
    )
    liking = np.bincount(data.user[data.label == LIKE], minlength=data.n_users) > 0
    users = _vectors(data.user_ids[liking], model.user_tower.embed(counts[liking]), "user_id")
    videos = _vectors(data.item_ids, model.item_tower.embed(data.item_counts), "video_id")
    known = pl.Series("product_url", [addresses.get(item) for item in data.item_ids], dtype=pl.String)
    found.append((USERS, _parquet(users)))
    found.append(("video_embeddings.parquet", _parquet(videos.insert_column(1, known))))
    with run_directory(out, version) as directory:
        _close(directory, version, [_write(directory / name, content) for name, content in found])
    return out / "runs" / version


def _trained(model: TrainedModel, data: TrainingData, version: str) -> list[tuple[str, bytes]]:
    """The files of a model that is in no database, without vectors, and without towers that are too large for ONNX."""
    made = registry.contents(model, data, version)
    documents = (registry.plain(made[name]) for name in ("feature_schema", "normalizer", "metrics", "meta"))
    return [
        *((name, content) for name, content in zip(MODEL_FILES, made["files"], strict=True) if content is not None),
        *((name, _json(document)) for name, document in zip(DOCUMENTS, documents, strict=True)),
        *((f"vocab_{name}.json", _json(_indexes(keys))) for name, keys in made["vocabularies"].items()),
    ]


@contextmanager
def kept(model: TrainedModel, data: TrainingData, version: str | None, dsn: str | None = None) -> Iterator[None]:
    """If the block, which registers ``model``, fails, its files are written to a new directory, and nothing is lost.

    The directory is in the working directory, or among temporary files if that cannot be written. Raises UserError with
    the failure, the directory, and the command that registers it, which names ``dsn`` if that is given. If another
    model has taken ``version``, the command registers it by the time.
    """
    try:
        yield
    except BaseException as error:  # interrupted, too
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        if version and not isinstance(error, psycopg.errors.UniqueViolation):  # which no other model has taken
            name = version
        reason = error.message if isinstance(error, UserError) else " ".join(str(error).split())
        said = f"{version or name} is trained, but was not registered: {reason or type(error).__name__}"
        try:
            directory = _keep(_trained(model, data, name), name)
        except Exception as failure:
            why = str(failure) or type(failure).__name__
            raise UserError(f"{said}; nor could its files be written: {why}") from error
        said += f"; its files are in {directory}"
        command = ["two-tower", "model", "register", str(directory)]
        if dsn:
            shown = without_password(dsn)
            command += ["--dsn", shown]
            if conninfo_to_dict(shown) != conninfo_to_dict(dsn):
                said += "; the command has no password, which PGPASSWORD or a password file can give"
        raise UserError(said, shlex.join(command)) from error


def _keep(files: list[tuple[str, bytes]], version: str) -> Path:
    """A new directory with these files; none is left of one that could not be completed."""
    # Each is looked up by itself: a working directory that was removed is an OSError.
    roots: list[Callable[[], Path | str]] = [Path.cwd, tempfile.gettempdir]
    failures = []
    for root in roots:
        with ExitStack() as undo:
            try:
                directory = Path(root()) / f"two-tower-{version}-{secrets.token_hex(4)}"
                directory.mkdir(mode=0o700)
                undo.callback(shutil.rmtree, directory, ignore_errors=True)
                _close(directory, version, [_write(directory / name, content) for name, content in files])
            except (OSError, UserError) as error:
                failures.append(error.message if isinstance(error, UserError) else str(error))
            else:
                undo.pop_all()
                return directory
    raise UserError("; ".join(failures))


def _indexes(keys: Sequence[str]) -> dict[str, int]:
    """A vocabulary as an object from key to index, since clients look up indexes by key."""
    return {key: at for at, key in enumerate(keys)}


def _vectors(ids: np.ndarray, embedding: np.ndarray, name: str) -> pl.DataFrame:
    return pl.DataFrame(
        {name: ids, "embedding": embedding.astype(np.float32)},
        schema={name: pl.String, "embedding": pl.Array(pl.Float32, DIM)},
    )


def _files(
    connection: psycopg.Connection[Any], version: str, max_video_features: int | None
) -> list[tuple[str, bytes]]:
    row = connection.execute(
        "select feature_schema, normalizer, metrics, meta from two_tower.model_documents where model_version = %s",
        (version,),
    ).fetchone()
    if row is None:
        raise UserError(f"there is no model version {version}", "list them with `two-tower model list`")
    schema, normalizer, metrics, meta = row
    stored = connection.execute("select name, content from two_tower.model_files where model_version = %s", (version,))
    files = {name: bytes(content) for name, content in stored}
    if max_video_features is not None or files.keys() != set(MODEL_FILES):
        from two_tower.lifecycle import towers

        whole = towers.load(connection, version)
        videos = len(whole.schema.vocabularies["video"])
        if max_video_features is not None and max_video_features < videos:
            less = towers.smaller(whole, max_video_features)
            files, parity = towers.files(less, None)
            schema = less.schema.to_json()
            lineage = meta.get("lineage", {}) | {"videos_of_the_version": videos}
            meta = meta | {"sizes": registry.sizes(less.schema), "lineage": lineage}
        else:
            made, parity = towers.files(whole, metrics.get("parity"))
            files = made | files  # stored files take precedence
            parity = {
                tower: sample | {"sha256": hashlib.sha256(files[f"{tower}_tower.onnx"]).hexdigest()}
                for tower, sample in parity.items()
            }
        metrics = metrics | {"parity": parity}
    found = list(files.items())
    documents = (schema, normalizer, metrics, meta)
    found += [(name, _json(document)) for name, document in zip(DOCUMENTS, documents, strict=True)]
    keys = connection.execute(
        """select s.vocabulary, coalesce(jsonb_agg(v.key order by v.index) filter (where v.key is not null), '[]')
        from (
            select distinct vocabulary from two_tower.model_segments
            where model_version = %(v)s and vocabulary is not null
        ) s
        left join two_tower.vocabularies v on v.model_version = %(v)s and v.vocabulary = s.vocabulary
        group by s.vocabulary""",
        {"v": version},
    )
    for name, listed in keys:
        if name == "video" and max_video_features is not None:
            del listed[max_video_features:]
        found.append((f"vocab_{name}.json", _json(_indexes(listed))))
    users = vectors(
        connection,
        "select user_id, embedding from two_tower.user_embeddings where model_version = {} order by user_id",
        version,
    )
    placed = vectors(
        connection,
        "select video_id, embedding from two_tower.video_embeddings where model_version = {} order by video_id",
        version,
    )
    urls = connection.execute("select id::text, product_url from public.videos").fetchall()
    known = pl.DataFrame(urls, schema={"id": pl.String, "product_url": pl.String}, orient="row")
    placed = placed.join(known, on="id", how="left").select(pl.col("id").alias("video_id"), "product_url", "embedding")
    found.append((USERS, _parquet(users.rename({"id": "user_id"}))))
    found.append(("video_embeddings.parquet", _parquet(placed)))
    return found


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> Path:
    with writing(path):
        path.write_bytes(content)
    return path


# ------------------------------------------------------------------------------------------------ into the database


def register(connection: psycopg.Connection[Any], directory: Path, version: str | None = None) -> tuple[str, bool]:
    """Register the exported files of ``directory`` as a candidate, optionally under another name.

    Returns its version, and whether it is new: registering the same content again changes nothing. Raises UserError if
    a file is missing or does not match the manifest, psycopg.Error if the database refuses the model.
    """
    manifest = _manifest(_read(directory / MANIFEST))
    registry.require_version_name(version or manifest["version"])
    for entry in _of_the_model(manifest):
        content = _read(directory / entry["path"])
        _verify(entry, len(content), hashlib.sha256(content).hexdigest())
    listed = {entry["path"] for entry in manifest["files"]}

    def load(name: str) -> Any:
        if name not in listed:
            raise UserError(f"{name} is not in {directory / MANIFEST}", "export the model anew: two-tower model export")
        content = (directory / name).read_bytes()
        if name in MODEL_FILES:
            return content
        try:
            return json.loads(content)
        except ValueError as error:
            raise UserError(f"{directory / name} is not JSON: {error}") from error

    schema, normalizer, metrics, meta = (load(name) for name in DOCUMENTS)
    names = {s["vocabulary"] for tower in ("user", "item") for s in schema[tower]["segments"] if s["vocabulary"]}
    vocabularies = {name: _keys(name, load(f"vocab_{name}.json")) for name in sorted(names)}
    if version and version != manifest["version"]:
        lineage = meta.get("lineage", {}) | {"registered_from": manifest["version"]}
        meta = meta | {"version": version, "lineage": lineage}
    version = version or manifest["version"]
    known = connection.execute("select from two_tower.model_versions where version = %s", (version,)).fetchone()
    # A tower that is too large for ONNX is computed from its weights.
    towers = [load(name) if name in listed else None for name in MODEL_FILES[:2]]
    registry.register_files(
        connection,
        version,
        (towers[0], towers[1], load(MODEL_FILES[2])),
        feature_schema=schema,
        normalizer=normalizer,
        vocabularies=vocabularies,
        metrics=metrics,
        meta=meta,
    )
    return version, known is None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing", "a directory of `two-tower model export` is complete when it has a manifest"
        ) from error


def _manifest(content: bytes) -> dict[str, Any]:
    """The manifest, with only plain file names; other names could point outside its directory."""
    try:
        manifest = json.loads(content)
        names = [manifest["version"], *(entry["path"] for entry in manifest["files"])]
        whole = all(isinstance(e["bytes"], int) and isinstance(e["sha256"], str) for e in manifest["files"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError("the manifest is not one of two-tower's") from error
    bad = [name for name in names if not (isinstance(name, str) and NAME.fullmatch(name))]
    if bad or not whole:
        raise UserError(f"the manifest has invalid names of files: {bad}")
    return dict(manifest)


def _of_the_model(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in manifest["files"] if not RUNTIME.fullmatch(entry["path"])]


def _verify(entry: dict[str, Any], size: int, digest: str) -> None:
    if (size, digest) != (entry["bytes"], entry["sha256"]):
        raise UserError(f"{entry['path']} is not the file that the manifest names: {size} bytes, sha256 {digest[:12]}…")


def _keys(name: str, vocabulary: Any) -> list[str]:
    """The keys in the order of their indexes, which must be 0, 1, 2, ..."""
    if not isinstance(vocabulary, dict) or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise UserError(f"vocab_{name}.json does not number its keys 0, 1, 2, …")
    return sorted(vocabulary, key=vocabulary.__getitem__)


# ------------------------------------------------------------------------------------------------ publishing


def publish(
    connection: psycopg.Connection[Any],
    version: str,
    url: str,
    progress: Progress,
    *,
    users: bool = False,
    runtime: Path | None = None,
    activate: bool = True,
) -> dict[str, Any]:
    """Upload ``version`` and, to ``activate`` it, make it the current one.

    Returns ``{"version", "url", "uploaded", "current"}``. The manifest of ``current`` is replaced last, by one put, so
    it names either the old version or the new one. A version that is already published stays as it is. ``users`` and
    ``runtime`` are as in :func:`upload`.
    """
    manifest, uploaded = upload(connection, version, url, progress, users=users, runtime=runtime)
    if activate:
        progress("moving current", 1.0)
        point(url, manifest)
    return {"version": version, "url": url, "uploaded": uploaded, "current": activate}


def upload(
    connection: psycopg.Connection[Any],
    version: str,
    url: str,
    progress: Progress,
    *,
    users: bool = False,
    runtime: Path | None = None,
) -> tuple[bytes, int]:
    """Export ``version`` and upload its files below ``url``, the manifest last; returns it and the number of files.

    ``users`` includes users' vectors; ``runtime`` is a directory with the files that onnxruntime-web loads. Raises
    UserError if another model is published under that version.
    """
    registry.require_version_name(version)  # a database may have an older one with a reserved name
    store = _store(url)
    beside = [] if runtime is None else runtime_files(runtime)
    with tempfile.TemporaryDirectory() as made:
        progress("exporting", 0.0)
        files = export(connection, version, Path(made), users=users, runtime=beside)
        manifest = files[-1].read_bytes()
        there = _get(store, url, f"{version}/{MANIFEST}")
        if there is not None:
            if _model(there) != _model(manifest):
                raise UserError(
                    f"another model is published as {version} at {url}", "register this one under another version"
                )
            return there, 0
        for at, path in enumerate(files):
            progress(f"uploading {path.name}", at / len(files))
            with _storage_errors(f"{url}/{version}/{path.name}"):
                _put(store, f"{version}/{path.name}", path, attributes=_attributes(url, path.name))
    return manifest, len(files)


def runtime_files(directory: Path) -> list[Path]:
    """The files of its ``dist`` that onnxruntime-web loads. Raises UserError if there are none."""
    found = sorted(path for path in directory.glob("ort-wasm*") if RUNTIME.fullmatch(path.name))
    if not any(path.suffix == ".wasm" for path in found):
        raise UserError(
            f"there is no ort-wasm*.wasm in {directory}",
            "name the directory dist of onnxruntime-web: node_modules/onnxruntime-web/dist",
        )
    return found


def _attributes(url: str, name: str) -> Any:
    """Content type of a file for browsers; None for a directory, which cannot store it."""
    kind = CONTENT_TYPES.get(Path(name).suffix)
    return {"Content-Type": kind} if kind and url.startswith("s3:") else None


def point(url: str, manifest: bytes) -> None:
    """Make the published version of ``manifest`` the current one at ``url``: its files are copied, then the manifest.

    If that fails, ``current`` is restored.
    """
    import obstore

    store = _store(url)
    before = _get(store, url, CURRENT)
    try:
        _copy_to_current(store, url, manifest)
        with _storage_errors(f"{url}/{CURRENT}"):
            _put(store, CURRENT, manifest, attributes=_attributes(url, CURRENT))
    except UserError:
        if before is not None and before != manifest:
            with suppress(UserError):
                _copy_to_current(store, url, before)
        raise
    kept = {entry["path"] for entry in _manifest(manifest)["files"]} | {MANIFEST}
    if before is not None:
        with suppress(UserError, FileNotFoundError):  # extra files do not matter to a client that reads the manifest
            for entry in _manifest(before)["files"]:
                if entry["path"] not in kept:
                    with _storage_errors(f"{url}/current/{entry['path']}"):
                        patiently(store, CURRENT, partial(obstore.delete, store, f"current/{entry['path']}"))


def _copy_to_current(store: Any, url: str, manifest: bytes) -> None:
    import obstore

    named = _manifest(manifest)
    for entry in named["files"]:
        with _storage_errors(f"{url}/current/{entry['path']}"):
            source, target = f"{named['version']}/{entry['path']}", f"current/{entry['path']}"
            patiently(store, target, partial(obstore.copy, store, source, target))


def fetch(connection: psycopg.Connection[Any], url: str, version: str | None, progress: Progress) -> dict[str, Any]:
    """Download a published version (None: the current one), verify every file, and register it as a candidate.

    Returns ``{"version", "url", "registered"}``; a version that is already registered stays as it is. Files are in a
    temporary directory until all are verified, and registering is one statement, so an interruption leaves nothing
    behind.
    """
    if version:
        registry.require_version_name(version)
    store = _store(url)
    where = f"{version}/{MANIFEST}" if version else CURRENT
    found = _get(store, url, where)
    if found is None:
        raise UserError(f"there is no {where} at {url}", "publish a model there: two-tower model publish")
    manifest = _manifest(found)
    registry.require_version_name(manifest["version"])
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        entries = _of_the_model(manifest)
        for at, entry in enumerate(entries):
            progress(f"downloading {entry['path']}", at / len(entries))
            _download(store, url, manifest["version"], entry, directory / entry["path"])
        _write(directory / MANIFEST, found)
        progress("registering", 1.0)
        name, new = register(connection, directory)
    return {"version": name, "url": url, "registered": new}


def _download(store: Any, url: str, version: str, entry: dict[str, Any], target: Path) -> None:
    import obstore

    path = f"{version}/{entry['path']}"

    def download() -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        with target.open("wb") as file:
            for block in obstore.get(store, path).stream():
                digest.update(block)
                size += file.write(block)
        return size, digest.hexdigest()

    with _storage_errors(f"{url}/{path}"):
        size, digest = patiently(store, path, download)
    _verify(entry, size, digest)


def _put(store: Any, path: str, content: Path | bytes, attributes: Any) -> None:
    import obstore

    patiently(store, path, lambda: obstore.put(store, path, content, attributes=attributes))


def _model(manifest: bytes) -> dict[str, str]:
    """Hashes of the model's own files, without the vectors, which change with every refresh."""
    files = _of_the_model(_manifest(manifest))
    return {entry["path"]: entry["sha256"] for entry in files if not entry["path"].endswith(".parquet")}


def _store(url: str) -> Any:
    import obstore.store

    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
        with _storage_errors(url):
            return obstore.store.LocalStore(unquote(parts.path), mkdir=True)
    if parts.scheme == "s3" and parts.netloc:
        for name in [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]:
            del os.environ[name]  # CI systems set missing variables to an empty text, which the client would read
        endpoint = (
            os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
            or os.environ.get("AWS_ENDPOINT")
        )
        config: Any = {"endpoint": endpoint} if endpoint else {}
        if not (endpoint or os.environ.get("AWS_ACCESS_KEY_ID")):
            config = supabase.storage()
            endpoint = config.get("endpoint")
        with _storage_errors(url):
            return obstore.store.S3Store(
                parts.netloc,
                prefix=unquote(parts.path).strip("/") or None,
                config=config or None,
                # Plain HTTP is allowed if the endpoint says so.
                client_options={"allow_http": bool(endpoint and endpoint.startswith("http:"))},
                retry_config={"max_retries": 0},  # patiently() retries
            )
    raise UserError(f"models cannot be published to {url}", "give file:///absolute/path or s3://bucket/prefix")


def _get(store: Any, url: str, path: str) -> bytes | None:
    import obstore

    with _storage_errors(f"{url}/{path}"):
        try:
            return patiently(store, path, lambda: bytes(obstore.get(store, path).bytes()))
        except FileNotFoundError:
            return None


@contextmanager
def _storage_errors(what: str) -> Iterator[None]:
    import obstore.exceptions

    try:
        yield
    except (obstore.exceptions.BaseError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{what}: {reason}", "check the URL, and for S3 the AWS_* variables of the environment"
        ) from error
