"""Comparison of versions, decisions of their gates, and which version serves."""

from __future__ import annotations

from threading import current_thread
from typing import Any

import altair as alt
import streamlit as st
from streamlit.runtime.scriptrunner import add_script_run_ctx, get_script_run_ctx

from two_tower.metrics import TITLES
from two_tower.progress import Progress
from two_tower.ui import actions, look, queries
from two_tower.ui.look import ITEMS, LIKES, RECOMMENDED, TEAL, number, percent
from two_tower.ui.session import answered, ask, behind, do, dsn, may, refusal, tell

REFERENCES = {"two-tower": RECOMMENDED, "EASE^R": LIKES, "item-kNN": TEAL, "popularity": ITEMS}
"""Recommenders in the charts, and their colours."""
FORMATS = {title: st.column_config.NumberColumn(format="%.4f") for title in TITLES.values()}


def page() -> None:
    """Metrics by version, gate decisions, activation and rollback."""
    look.heading("Models", "Metrics of each version on likes held out of its training, and which version is active.")
    tell("models")
    found = ask(queries.models)
    if not found:
        look.nothing("There is no model yet.", "Train one on the decisions.", "two-tower train")
        return
    _serve(found)
    st.subheader("Versions", anchor=False)
    look.table(
        [_line(row) for row in found],
        "Versions with their states and metrics",
        registered=look.moment(),
        activated=look.moment(),
        **FORMATS,
    )
    behind(queries.models)
    _plots(found)
    _gates()
    _details(found)


def _line(row: dict[str, Any]) -> dict[str, Any]:
    own = row["metrics"].get("two-tower") or {}
    return {
        "version": row["version"],
        "state": row["state"] + (", forced" if row["forced"] else ""),
        **{title: own.get(name) for name, title in TITLES.items()},
        "registered": row["registered_at"],
        "activated": row["activated_at"],
    }


# ------------------------------------------------------------------------------------------------- the active version


def _serve(found: list[dict[str, Any]]) -> None:
    active = next((row for row in found if row["state"] == "active"), None)
    serving = active["version"] if active else ""  # part of keys, so that a change of version resets the choices
    # A version that served only in an experiment is no version to go back to.
    standby = [row for row in found if row["state"] == "standby" and row["activated_at"]]
    standby.sort(key=lambda row: row["activated_at"], reverse=True)
    ready = [
        row["version"] for row in found if row["state"] in ("candidate", "staged", "standby") and row not in standby
    ]
    with st.container(border=True, key="serving"):
        left, middle, right = st.columns([2.4, 2, 2], vertical_alignment="center", gap="large")
        with left:
            if active:
                when = f"{active['activated_at']:%Y-%m-%d %H:%M}"
                st.markdown(f"**{look.plain(active['version'])}** has been active since {when}.")
            else:
                st.markdown("**No model is active.** All users get popular videos.")
            waiting = ", ".join(look.plain(row["version"]) for row in standby)
            st.caption(f"On standby: {waiting}" if standby else "There is no version to roll back to.")
        if not may("activate") and not may("roll_back"):
            middle.caption(refusal("activate or roll back", "the rights of service_role or of the owner"))
            return
        if ready and may("activate"):
            with middle:
                version = st.selectbox("Candidate", ready, key=f"candidate-{serving}")
                if st.button("Activate …", key="activate", width="stretch"):
                    _confirm_activation(version, active)
        if standby and may("roll_back"):
            with right:
                version = st.selectbox(
                    "Version to roll back to", [row["version"] for row in standby], key=f"back-{serving}"
                )
                if st.button("Roll back …", key="roll-back", width="stretch"):
                    _confirm_rollback(version, active)


@st.dialog("Activate a model")
def _confirm_activation(version: str, active: dict[str, Any] | None) -> None:
    stands_by = f" {look.plain(active['version'])} goes on standby, and its vectors stay fresh." if active else ""
    st.markdown(f"**{look.plain(version)}** will serve all users.{stands_by}")
    st.caption(
        "Missing vectors are computed first, which may take a while. Then the quality gate checks the version; if it "
        "refuses, nothing changes."
    )
    sure, back = st.columns(2)
    if back.button("Cancel", width="stretch"):
        st.rerun()
    if sure.button("Activate", type="primary", width="stretch", key="sure"):
        do("models", lambda: actions.activate(dsn(), version, progress_bar()), _serves)


@st.dialog("Roll back")
def _confirm_rollback(version: str, active: dict[str, Any] | None) -> None:
    instead = f" instead of {look.plain(active['version'])}" if active else ""
    st.markdown(f"**{look.plain(version)}** will serve all users{instead}, at once. Its vectors are fresh.")
    sure, back = st.columns(2)
    if back.button("Cancel", width="stretch"):
        st.rerun()
    if sure.button("Roll back", type="primary", width="stretch", key="sure"):
        do("models", lambda: actions.roll_back(dsn(), version), _serves)


def progress_bar() -> Progress:
    """A progress bar, for work that reports its progress."""
    bar, context = st.progress(0.0), get_script_run_ctx()

    def advance(what: str, share: float) -> None:
        # Threads of a backfill call it, too, and do not belong to the page's session otherwise.
        add_script_run_ctx(current_thread(), context)
        bar.progress(min(1.0, max(0.0, share)), text=f"{what} …")

    return advance


def _serves(found: dict[str, Any]) -> str:
    previous = f"; {found['previous']} is on standby" if found["previous"] else ""
    return f"{found['model_version']} is active{previous}."


# ------------------------------------------------------------------------------------------------- metrics and details


def _plots(found: list[dict[str, Any]]) -> None:
    order = [row["version"] for row in reversed(found)]
    values = [
        {"version": row["version"], "metric": title, "recommender": name, "value": value, "state": row["state"]}
        for row in found
        for name, title in TITLES.items()
        for name, title, value in [
            (recommender, title, (row["metrics"].get(recommender) or {}).get(name)) for recommender in REFERENCES
        ]
        if value is not None
    ]
    measured = [title for title in TITLES.values() if any(row["metric"] == title for row in values)]
    if not measured:
        st.caption("No version has metrics.")
        return
    shown = {n: colour for n, colour in REFERENCES.items() if any(row["recommender"] == n for row in values)}
    st.subheader("Metrics by version", anchor=False)
    st.caption("Each version and its baselines on the same held-out likes, oldest version first.")
    look.legend(shown)
    columns = st.columns(min(3, len(measured)), gap="medium")
    for at, title in enumerate(measured):
        base = look.chart([row for row in values if row["metric"] == title]).encode(
            x=alt.X(
                "version:N", sort=order, title=None, axis=alt.Axis(labelAngle=0, labelLimit=130, labelOverlap=True)
            ),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=title != "AUC"), axis=alt.Axis(tickCount=5)),
            color=look.coloured("recommender:N", shown),
            tooltip=["version:N", "state:N", "recommender:N", alt.Tooltip("value:Q", title=title, format=".4f")],
        )
        chart = alt.layer(base.mark_line(opacity=0.5), base.mark_circle(size=70, opacity=1))
        with columns[at % len(columns)]:
            look.show(chart.properties(height=230, title=title), f"{title} by version")


def _gates() -> None:
    st.subheader("Gate decisions", anchor=False)
    found = ask(queries.events)
    look.table(
        [
            {
                "at": row["at"],
                "version": row["model_version"],
                "change": f"{row['from_state'] or 'new'} → {row['to_state']}",
                "gate": _verdict(row),
                "found": _findings(row["report"] or {}),
                "by": row["role"],
            }
            for row in found
        ],
        "Changes of state, with the decisions of the gate",
        at=look.moment(),
        found=st.column_config.TextColumn(width="large"),
    )
    behind(queries.events)
    _thresholds()


@st.fragment
@answered()
def _thresholds() -> None:
    section = look.section("Thresholds")
    if section.open:
        with section:
            rows = [{**row, "value": str(row["value"])} for row in ask(queries.thresholds)]
            look.table(rows, "Thresholds of the gate")
            behind(queries.thresholds)


def _verdict(row: dict[str, Any]) -> str:
    if row["forced"]:
        return "overridden"
    if row["to_state"] == "rejected":
        return "refused"
    return "passed" if row["report"] else ""


def _findings(report: dict[str, Any]) -> str:
    """A gate's report in one line: its reasons to refuse, or else what it measured."""
    if report.get("reasons"):
        return "; ".join(report["reasons"])
    parts = []
    if report.get("index_recall") is not None:
        parts.append(f"recall of the index {percent(report['index_recall'])}")
    if report.get("distance") is not None:
        parts.append(f"stored vectors differ from computed ones by {report['distance']:.1e}")
    if "missing_users" in report:
        parts.append(f"without a vector: {report['missing_users']} users, {report['missing_videos']} videos")
    return ", ".join(parts)


def _details(found: list[dict[str, Any]]) -> None:
    st.subheader("Details of a version", anchor=False)
    by_name = {row["version"]: row for row in found}
    chosen = st.selectbox("Version", list(by_name), key="version", label_visibility="collapsed")
    row = by_name[chosen]
    left, right = st.columns(2, gap="large")
    measured = {name: values for name, values in row["metrics"].items() if isinstance(values, dict)}
    left.caption("Measured on held-out likes")
    with left:
        look.table(
            [
                {"": name, **{title: values.get(metric) for metric, title in TITLES.items()}}
                for name, values in measured.items()
                if any(values.get(metric) is not None for metric in TITLES)
            ],
            "Metrics of the version and of baselines",
            **FORMATS,
        )
    _run(row["meta"])
    right.caption(f"Metadata: {row['user_dim']} inputs of the user tower, {row['item_dim']} of the item tower")
    with right:
        st.json(row["meta"], expanded=1)


def _run(meta: dict[str, Any]) -> None:
    """A training's data, its duration, and its loss by epoch."""
    data, chosen, loss = (meta.get(name) or {} for name in ("training_data", "hyperparameters", "loss"))
    facts = {
        "trained at": meta.get("trained_at") or meta.get("given_at"),
        "training data": ", ".join(
            f"{number(data[name])} {name}" for name in ("users", "videos", "likes", "nopes", "skips") if name in data
        ),
        "measured on": chosen.get("held_out"),
        "loss": loss.get("name"),
        "best epoch": chosen.get("best_epoch"),
        "duration": None if chosen.get("seconds") is None else f"{number(chosen['seconds'])} s",
        "compared with": (meta.get("lineage") or {}).get("incumbent"),
    }
    told = [{"": name, "value": str(value)} for name, value in facts.items() if value not in (None, "")]
    if told:
        st.caption("Training")
        look.table(told, "Data and duration of the training")
    values = [
        {"epoch": epoch["epoch"], "of": of, "loss": epoch[key]}
        for epoch in loss.get("epochs") or []
        for key, of in (("train_loss", "training"), ("val_loss", "held out"))
        if epoch.get(key) is not None
    ]
    if values:
        colours = {"training": look.SERIES["items"], "held out": look.SERIES["likes"]}
        drawn = (
            look.chart(values)
            .mark_line(point=True)
            .encode(
                x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1)),
                y=alt.Y("loss:Q", scale=alt.Scale(zero=False)),
                color=look.coloured("of:N", colours),
                tooltip=["epoch:Q", "of:N", alt.Tooltip("loss:Q", format=".4f")],
            )
        )
        look.legend(colours)
        look.show(drawn.properties(height=200), "Loss by epoch, on training data and on held-out likes")
