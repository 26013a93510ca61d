"""The command line, ``two-tower``. Results go to standard output; progress and logs to standard error.

Exit codes: 0 done, 1 the work failed, 2 wrong usage, 3 a quality gate said no. Verbs import what they need when they
run, so that ``two-tower --help`` answers at once.
"""

from __future__ import annotations

import json as jsonlib
import os
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from two_tower.errors import UserError

if TYPE_CHECKING:
    from two_tower.registry import Refreshed

out = Console(soft_wrap=True)
log = Console(stderr=True, soft_wrap=True)


class Verbs(TyperGroup):
    """Prints an error that the user can mend as one message, without a traceback, and exits with its code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            _complain(error.message, error.hint)
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader, such as head, has enough
            raise typer.Exit(0) from None
        except ModuleNotFoundError as error:
            if error.name not in {"onnx", "onnxruntime", "optuna", "safetensors", "scipy", "torch"}:
                raise
            _complain(f"this takes {error.name}, which is not installed", "pip install 'pg-two-tower[train]'")
            raise typer.Exit(1) from error
        except Exception as error:
            psycopg = sys.modules.get("psycopg")
            if psycopg is None or not isinstance(error, psycopg.Error):
                raise
            # What the database says is meant for people; its context lines are for those who mend it.
            lacks_right = isinstance(error, psycopg.errors.InsufficientPrivilege)
            hint = "connect as the owner of the database, or as a member of service_role" if lacks_right else None
            _complain(str(error).strip(), hint)
            raise typer.Exit(1) from error


def _complain(message: str, hint: str | None) -> None:
    log.print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    if hint:
        log.print(f"[bold]hint:[/] {escape(hint)}", highlight=False)


def _also_before_the_verb(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """``two-tower --json status`` says the same as ``two-tower status --json``."""
    return value or ctx.find_root().params.get(param.name or "") or value


Dsn = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        metavar="URL",
        callback=_also_before_the_verb,
        show_default=False,
        help="PostgreSQL to use; else DATABASE_URL (also from .env), else the embedded server.",
    ),
]
Json = Annotated[bool, typer.Option("--json", callback=_also_before_the_verb, help="Print the result as JSON.")]

# Limits of the gate, for one run; gate_overrides() says which setting each overrides.
MinRecall = Annotated[
    float | None,
    typer.Option(show_default="the setting gate_min_recall_at_20", help="Recall@20 must be at least this."),
]
MinNdcg = Annotated[
    float | None,
    typer.Option(show_default="the setting gate_min_ndcg_at_20", help="NDCG@20 must be at least this."),
]
OverPopularity = Annotated[
    float | None,
    typer.Option(
        show_default="the setting gate_over_popularity", help="Recall@20 must be this many times popularity's."
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        show_default="the setting gate_max_drop", help="Share by which it may be worse than the active version."
    ),
]


def gate_overrides(
    min_recall: float | None, min_ndcg: float | None, over_popularity: float | None, max_drop: float | None
) -> dict[str, float]:
    """The settings of the gate that options override."""
    given = {
        "gate_min_recall_at_20": min_recall,
        "gate_min_ndcg_at_20": min_ndcg,
        "gate_over_popularity": over_popularity,
        "gate_max_drop": max_drop,
    }
    return {name: value for name, value in given.items() if value is not None}


def manual(*examples: str, exits: str = "0 done, 1 it failed, 2 wrong usage") -> str:
    """What ends the help of a verb: examples, and its exit codes."""
    return "\n".join(["Examples:", *(f"  {example}" for example in examples), "", f"Exit codes: {exits}."])


PATH = """
The path, in the order of a first day:
  two-tower up                                  a private PostgreSQL in ./.two-tower
  two-tower migrate                             tables, routines, policies
  two-tower doctor                              what the server lacks, and how to mend it
  two-tower import catalog catalog.csv
  two-tower import decisions decisions.csv --create-users
  two-tower train                               a candidate, measured beside references
  two-tower model activate                      embeds everybody, asks the gate, serves
  two-tower recommend --all --output recs.csv   or recommend_videos() in SQL and PostgREST
  two-tower psql -- -c "select two_tower.schedule_jobs()"
                                                refreshes every minute, by pg_cron;
                                                without it: two-tower refresh --every 10
  two-tower status                              exit code 1 when a promise is broken

On any later day: refresh, status, metrics, ui to look; retrain weekly; model rollback to go back at once.

The database is --dsn, else DATABASE_URL (also from a file .env here), else the embedded server of this directory.
Results go to standard output, progress and messages to standard error; --json makes a result data.

Exit codes: 0 done, 1 the work failed or a promise is broken, 2 wrong usage, 3 a quality gate said no.
After each verb, --help says the rest. Documents: README.md, docs/.
"""

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A Two-Tower recommender that lives inside PostgreSQL.",
    epilog=PATH.strip(),
)


@app.callback()
def root(dsn: Dsn = None, json: Json = False) -> None:
    """A Two-Tower recommender that lives inside PostgreSQL."""


def say(line: str) -> None:
    """A line of progress."""
    log.print(line, markup=False, highlight=False)


def print_json(value: Any) -> None:
    """A result as JSON on standard output. Dates, UUIDs and paths become strings."""
    typer.echo(jsonlib.dumps(value, indent=2, default=str, ensure_ascii=False))


# ------------------------------------------------------------------------------------------------ the embedded server


@app.command(epilog=manual("two-tower up", "two-tower up --port 54320", "export DATABASE_URL=$(two-tower up)"))
def up(
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Also listen on this port of 127.0.0.1, with a password. Else: a socket only."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Start the embedded PostgreSQL of this directory, creating it first, and print its DSN.

    Data, log and socket are in ./.two-tower. Started by root, the server runs as
    user postgres. If it runs already, only the DSN is printed.
    """
    from two_tower.server import Server

    server = Server(Path.cwd())
    dsn = server.start(port, say)
    dsn = server.tcp_dsn or dsn
    if json:
        print_json({"dsn": dsn, "version": server.installation.version, "directory": server.home, "log": server.log})
    else:
        typer.echo(dsn)


@app.command(epilog=manual("two-tower down"))
def down() -> None:
    """Stop the embedded PostgreSQL of this directory. Its data stay; connections are cut."""
    from two_tower.server import Server

    stopped = Server(Path.cwd()).stop()
    say("stopped" if stopped else "not running")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog=manual("two-tower psql", "two-tower psql -- -c 'select * from two_tower.status'", exits="those of psql"),
)
def psql(ctx: typer.Context, dsn: Dsn = None) -> None:
    """Open psql on the database. What follows -- goes to psql."""
    from two_tower.database import resolve_dsn
    from two_tower.server import installations

    target = resolve_dsn(dsn)
    found = [str(item.bindir / "psql") for item in installations()] + [shutil.which("psql") or ""]
    program = next((path for path in found if os.access(path, os.X_OK)), None)
    if program is None:
        raise UserError("psql is not installed", "install package postgresql-client")
    sys.stdout.flush()
    os.execv(program, [program, "--dbname", target, *ctx.args])  # noqa: S606 - psql takes this process's place


@app.command(
    epilog=manual(
        "two-tower doctor",
        "two-tower doctor --dsn postgresql://postgres@db.example/app",
        exits="0 all that is needed is there (warnings aside), 1 something is missing, 2 wrong usage",
    )
)
def doctor(dsn: Dsn = None, json: Json = False) -> None:
    """Check a PostgreSQL for what the recommender needs, and say how to mend what it lacks.

    Version, extensions, onnxruntime in the server's Python, memory for index
    builds, pg_cron, migrations, active model. Changes nothing: what must be tried
    is rolled back.
    """
    from dataclasses import asdict

    from two_tower.database import connect, resolve_dsn
    from two_tower.doctor import check

    target = resolve_dsn(dsn)
    with connect(target, autocommit=True, migrated=False) as connection:
        checks = check(connection, target)
    if json:
        print_json([asdict(item) for item in checks])
    else:
        colours = {"ok": "green", "info": "cyan", "warn": "yellow", "fail": "bold red"}
        width = max(len(item.name) for item in checks)
        for item in checks:
            out.print(
                f"[{colours[item.level]}]{item.level:<4}[/] {item.name:<{width}}  {escape(item.detail)}",
                highlight=False,
            )
            if item.remedy:
                out.print(f"     {'':<{width}}  → {escape(item.remedy)}", highlight=False)
    if not all(item.ok for item in checks):
        raise typer.Exit(1)


# --------------------------------------------------------------------------------------------------------- the schema


@app.command(
    epilog=manual(
        "two-tower migrate --check",
        "two-tower migrate",
        "two-tower migrate --take-names",
        "two-tower migrate --to 0006.embeddings",
        "two-tower migrate --to 0",
        exits="0 done, or nothing is in the way, 1 something is, 2 wrong usage",
    )
)
def migrate(
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="ID",
            help="Go forward or back to this migration (a file of migrations/ without .sql); 0 takes all away.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what is in the way and what would change; change nothing.")
    ] = False,
    take_names: Annotated[
        bool,
        typer.Option(
            "--take-names",
            help="Where the application has a relation or routine of a name of ours, rename it until the way back.",
        ),
    ] = False,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Apply what is pending of migrations/, then all of sql/, in one transaction. Doing it again changes nothing.

    Everything that can be refused is looked at before the first write, and named in
    one list. Existing tables are adopted: their rows, policies and grants stay as
    they are. --to 0 gives back what was found.
    """
    from two_tower.migrate import check as look
    from two_tower.migrate import migrate as run

    if check:
        report = look(dsn, take_names=take_names)
        if json:
            print_json(
                {
                    "problems": [{"what": p.what, "remedy": p.remedy} for p in report.problems],
                    "changes": report.changes,
                    "notes": report.notes,
                }
            )
        else:
            for problem in report.problems:
                out.print(f"[bold red]in the way:[/] {escape(str(problem))}", highlight=False)
            for line in [*report.changes, *report.notes]:
                out.print(line, markup=False, highlight=False)
        if report.problems:
            raise typer.Exit(1)
        return
    result = run(dsn, to, take_names=take_names, say=say)
    if json:
        print_json(result)
        return
    for done, names in (("applied", result["applied"]), ("rolled back", result["rolled_back"])):
        for name in names:
            say(f"{done} {name}")
    say("the database is up to date" if to is None else f"the database is at {to}")


# ----------------------------------------------------------------------------------------------- training and measuring


@app.command(
    epilog=manual(
        "two-tower train",
        "two-tower train --min-stars 3.5 --version friday",
        "two-tower train --search 50 --search-timeout 3600",
        "two-tower train --json",
    )
)
def train(
    min_stars: Annotated[float, typer.Option(help="Reviews with at least this many stars are likes.")] = 4.0,
    max_negative_stars: Annotated[float, typer.Option(help="Reviews with at most this many stars are nopes.")] = 2.0,
    max_tag_features: Annotated[int, typer.Option(min=0, help="Tags with an input of their own.")] = 2_000,
    max_performer_features: Annotated[int, typer.Option(min=0, help="Performers with an input of their own.")] = 5_000,
    max_video_features: Annotated[int, typer.Option(min=0, help="Videos with an input of their own.")] = 10_000,
    use_price_feature: Annotated[bool, typer.Option(help="Let prices take part.")] = False,
    val_ratio: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of each history held out to measure.")
    ] = 0.2,
    split: Annotated[
        Literal["user", "temporal"],
        typer.Option(help="Hold out the latest of each user's decisions, or everybody's from one point in time on."),
    ] = "user",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="0, or 10 with --loss, or where the catalogue is too large for the closed form",
            help="Go on by gradients, at most so long, and keep the epoch that validation finds best, if any.",
        ),
    ] = None,
    loss: Annotated[
        Literal["softmax", "bce"] | None, typer.Option(help="What gradients minimise; softmax if not said.")
    ] = None,
    neg_per_pos: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="4",
            help="Negatives per like that gradients draw from what a user is not known to know. The closed form, and "
            "a softmax over a catalogue of up to 20,000, count all of that already.",
        ),
    ] = None,
    search: Annotated[
        int, typer.Option(min=0, metavar="N", help="Tune hyperparameters by N trials, over all runs on the study.")
    ] = 0,
    search_timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Begin no further trial after so long.")
    ] = None,
    study: Annotated[
        Path, typer.Option(help="Where trials are kept (SQLite); the same command goes on from there.")
    ] = Path("two-tower-study.sqlite"),
    seed: Annotated[int, typer.Option(help="The same seed and data give the same model.")] = 0,
    version: Annotated[str | None, typer.Option(help="A name for the model; by default the time.")] = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Train both towers on what the database knows, measure them, and register the model as a candidate.

    Several processes share the gradients: torchrun --nproc-per-node 2 -m two_tower train --epochs 10.
    """
    from two_tower import gradient, registry
    from two_tower.database import connect
    from two_tower.dataset import DatasetOptions, read
    from two_tower.progress import bar

    if version is not None:
        registry.require_version_name(version)  # not after hours of training
    options = DatasetOptions(
        min_stars=min_stars,
        max_negative_stars=max_negative_stars,
        max_tag_features=max_tag_features,
        max_performer_features=max_performer_features,
        max_video_features=max_video_features,
    )
    with gradient.joined() as processes:
        if processes.rank:
            gradient.follow(processes)
            return
        with connect(dsn, autocommit=True) as connection, bar(log) as progress:
            progress("reading", 0.0)
            data = read(connection, options)
            from two_tower.gate import judge
            from two_tower.train import TrainOptions, fit

            chosen = TrainOptions(
                seed=seed,
                val_ratio=val_ratio,
                use_price_feature=use_price_feature,
                split=split,
                epochs=gradient.Recipe.epochs if epochs is None and loss else epochs,
                loss=loss or gradient.Recipe.loss,
                neg_per_pos=neg_per_pos,
                search=search,
                search_timeout=search_timeout,
                study=str(study),
            )
            model = fit(data, chosen, progress, processes)
            registered = registry.register(connection, model, data, version)
            reasons = judge(connection, registered)
    if json:
        print_json(
            {
                "version": registered,
                "metrics": model.metrics,
                "hyperparameters": model.hyperparameters,
                "reasons": reasons,
            }
        )
    else:
        out.print(metrics_table(model.metrics, f"{registered}: measured on held-out likes"))
        say(f"{registered} is registered; serve it with `two-tower model activate`")
        if reasons:
            say(f"  as things are, the gate refuses it: {'; '.join(reasons)}")


@app.command(
    epilog=manual(
        "two-tower evaluate",
        "two-tower evaluate friday --min-recall 0.2 --max-drop 0.02",
        exits="0 good enough, 1 it failed, 2 wrong usage, 3 a threshold is missed",
    )
)
def evaluate(
    version: Annotated[str | None, typer.Argument(help="A version; by default the newest.")] = None,
    min_recall: MinRecall = None,
    min_ndcg: MinNdcg = None,
    over_popularity: OverPopularity = None,
    max_drop: MaxDrop = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Measure a version beside references and the active version, and ask the gate.

    On likes that came since both were trained, where 200 users have some; else as
    held out of their trainings. Also compares PyTorch, ONNX and stored vectors by
    cosine. Limits are settings of the database; an option overrides one for once.
    """
    from dataclasses import asdict

    from two_tower import gate
    from two_tower.database import connect
    from two_tower.errors import GateFailed
    from two_tower.registry import newest

    overrides = gate_overrides(min_recall, min_ndcg, over_popularity, max_drop)
    with connect(dsn, autocommit=True) as connection:
        found = gate.measure(connection, version or newest(connection))
        reasons = gate.judge(connection, found.version, found.numbers(), overrides)
    if json:
        print_json(asdict(found) | {"reasons": reasons})
    else:
        out.print(metrics_table(found.metrics, f"{found.version}: {found.measured_on}"))
        if found.incumbent:
            on = "the same likes" if found.fresh else "likes held out of its own training"
            figures = (
                f"{heading} {'not measured' if value is None else f'{value:.4f}'}"
                for heading, value in (
                    ("Recall@20", found.incumbent.metrics.get("recall@20")),
                    ("NDCG@20", found.incumbent.metrics.get("ndcg@20")),
                )
            )
            say(f"active {found.incumbent.version}, on {on}: {', '.join(figures)}")
        for what, distance in found.parity.items():
            say(f"cosine distance between {what}: {'not stored yet' if distance is None else f'{distance:.1e}'}")
    if reasons:
        raise GateFailed(f"{found.version} falls short: " + "; ".join(reasons))


def metrics_table(metrics: dict[str, Any], title: str) -> Any:
    """Rows of recommenders, columns of metrics, for a terminal."""
    from rich.table import Table

    headings = {
        "recall@20": "Recall@20",
        "ndcg@20": "NDCG@20",
        "map@20": "MAP@20",
        "auc": "AUC",
        "coverage@20": "coverage",
    }
    measured = [values for values in metrics.values() if isinstance(values, dict)]
    names = [name for name in headings if any(values.get(name) is not None for values in measured)]
    table = Table("", *(headings[name] for name in names), title=title, title_justify="left")
    # The model's own row first, then the references from weak to strong.
    order = ("two-tower", "random", "popularity", "item-kNN", "EASE^R")
    for recommender in sorted(metrics, key=lambda name: order.index(name) if name in order else len(order)):
        values = metrics[recommender]
        if isinstance(values, dict) and values.get("recall@20") is not None:
            table.add_row(recommender, *("–" if values.get(n) is None else f"{values[n]:.4f}" for n in names))
    return table


# -------------------------------------------------------------------------------------------------- driving and looking


@app.command(
    epilog=manual(
        "two-tower refresh",
        "two-tower refresh --recent '2 hours'",
        "two-tower refresh --include-existing --min-likes 5 --dry-run",
        "two-tower refresh --every 10",
    )
)
def refresh(
    recent: Annotated[
        str | None,
        typer.Option(metavar="INTERVAL", help="First mark users with a decision in the last '2 hours', say."),
    ] = None,
    min_likes: Annotated[int | None, typer.Option(min=1, help="First mark users with this many likes or more.")] = None,
    include_existing: Annotated[
        bool, typer.Option("--include-existing", help="Mark users who have all their vectors, too.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at no more users and videos than this.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do, and change nothing.")] = False,
    every: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            show_default=False,
            help="Refresh again and again, and run the other jobs when they are due, until SIGTERM or SIGINT.",
        ),
    ] = None,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Bring features and vectors up to date with what has changed.

    Changes mark their users and videos themselves, and what is marked is always
    refreshed. The options mark more users before that, those who fit all of them:
    by default those who lack a vector of a version that is served or kept ready,
    with --include-existing everyone. Where the input is the same, the vector stays
    as it is. Several may run side by side; a user that fails is set aside, retried
    later, and is no failure of the command (see two_tower.failed_changes).
    Popularity is counted and logs are purged afterwards where that is due.

    --every SECONDS stands for pg_cron where there is none: a service that prints a
    line for each round that did something, and survives a database that is away.
    """
    import time

    from two_tower import registry
    from two_tower.database import connect, resolve_dsn
    from two_tower.progress import bar

    marks = (recent, min_likes or 1, include_existing) if recent or min_likes or include_existing else None
    if every is not None:
        from two_tower.refresh_service import serve

        if marks or limit or dry_run:
            raise typer.BadParameter("goes with --dsn and --json alone", param_hint="--every")
        serve(resolve_dsn(dsn), every, lambda done: _tell_round(done, json), say)
        return
    started = time.perf_counter()
    with connect(dsn, autocommit=True) as connection, bar(log) as progress:
        if dry_run:
            pending = registry.pending(connection)
            found = registry.stale_users(connection, *marks, limit) if marks else 0
            answer = {"pending_users": pending["users"], "pending_videos": pending["videos"], "to_mark": found}
            if json:
                print_json(answer)
            else:
                say(f"pending: {pending['users']} users and {pending['videos']} videos; {found} more users to mark")
            return
        marked = registry.mark_users(connection, *marks, limit) if marks else 0
        done: dict[str, Any] = {"marked": marked, **registry.refresh(connection, progress, limit).counts}
    done["seconds"] = round(time.perf_counter() - started, 3)
    if json:
        print_json(done)
    else:
        say(f"{_refreshed(done)}, in {done['seconds']} s")


def _refreshed(counts: dict[str, Any]) -> str:
    return (
        f"{counts['users']} users and {counts['videos']} videos looked at, {counts['vectors']} vectors written, "
        f"{counts['failed']} set aside"
    )


def _tell_round(done: Refreshed, json: bool) -> None:
    """A line on standard output for a round of ``refresh --every``."""
    if json:
        line = jsonlib.dumps({**done.counts, "jobs": done.jobs}, default=str, ensure_ascii=False)
    else:
        jobs = (f"{job} " + ", ".join(f"{k}: {v}" for k, v in result.items()) for job, result in done.jobs.items())
        line = "; ".join([f"{datetime.now():%Y-%m-%d %H:%M:%S} {_refreshed(done.counts)}", *jobs])
    typer.echo(" ".join(line.splitlines()))  # an error may have several
    sys.stdout.flush()


@app.command(
    epilog=manual(
        "two-tower recommend --all --limit 20 --output recs.csv",
        "two-tower recommend --user 7f0e… --user 9a31… --output two.parquet",
    )
)
def recommend(
    output: Annotated[Path, typer.Option(help="A file that ends in .csv or .parquet.")],
    user: Annotated[
        list[str] | None, typer.Option("--user", metavar="ID", help="For this user; may be repeated.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="For every user.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Videos per user.")] = 20,
    workers: Annotated[int, typer.Option(min=1, max=32, help="Connections that ask side by side.")] = 1,
    dsn: Dsn = None,
    json: Json = False,
) -> None:
    """Write recommendations to a file: user_id, video_id, product_url, score, rank."""
    from two_tower.database import connect
    from two_tower.progress import bar
    from two_tower.recommend import write

    if everyone == bool(user):
        raise typer.BadParameter("say either --all or --user ID")
    with connect(dsn, autocommit=True) as connection, bar(log) as progress:
        rows = write(connection, None if everyone else user, limit, output, progress, workers)
    if json:
        print_json({"output": output, "rows": rows})
    else:
        say(f"{rows} rows in {output}")


@app.command(
    epilog=manual("two-tower demo", "two-tower demo --catalog catalog.csv --reviews reviews.csv"),
)
def demo(
    catalog: Annotated[Path | None, typer.Option(help="Your own catalogue, instead of the generated world.")] = None,
    reviews: Annotated[Path | None, typer.Option(help="Your own reviews; together with --catalog.")] = None,
) -> None:
    """Show the whole path on a small world: import, train, activate, like, refresh, recommend.

    In database two_tower_demo of the embedded server, made anew each time.
    """
    from two_tower.demo import run

    run(catalog, reviews)


def _register_groups() -> None:
    # At the end, because these modules take their conventions from this one.
    from two_tower import (
        bench_commands,
        data_commands,
        import_commands,
        model_commands,
        retrain_command,
        status_commands,
    )
    from two_tower.ui import command as ui_command

    app.add_typer(import_commands.app, name="import")
    app.add_typer(model_commands.app, name="model")
    app.add_typer(bench_commands.app, name="bench")
    app.command(epilog=retrain_command.MANUAL)(retrain_command.retrain)
    app.command(epilog=status_commands.STATUS_MANUAL)(status_commands.status)
    app.command(epilog=status_commands.METRICS_MANUAL)(status_commands.metrics)
    app.command(epilog=ui_command.MANUAL)(ui_command.ui)
    data_commands.register(app)


_register_groups()


if __name__ == "__main__":
    app()
