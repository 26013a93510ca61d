"""What we need of a server and of the application's tables, and the names that we use in schema ``public``.

``migrate``, ``migrate --sql`` and ``doctor`` check against it; this module queries no database.
"""

from __future__ import annotations

OLDEST, NEWEST = 15, 18
"""Major versions of PostgreSQL. ``setup.sh`` and the images of ``docker/`` choose among them."""

VECTOR_NEEDED = (0, 8, 0)
"""pgvector with iterative index scans."""

VECTOR = "vector"
"""Name of pgvector's extension."""

EXTENSIONS = {VECTOR: "postgresql-{}-pgvector", "plpython3u": "postgresql-plpython3-{}"}
"""The Debian package of each extension for a major version. pgvector is required; only one engine needs PL/Python."""

ROLES = ("anon", "authenticated", "service_role", "authenticator", "two_tower_viewer")
"""Roles to which routines are granted, or as which clients log in."""

FILTERS = {
    "all_tag_ids": "uuid[]",
    "no_tag_ids": "uuid[]",
    "performer_ids": "uuid[]",
    "all_performer_ids": "uuid[]",
    "no_performer_ids": "uuid[]",
    "makers": "text[]",
    "no_makers": "text[]",
    "series": "text[]",
    "no_series": "text[]",
    "price_min": "real",
    "price_max": "real",
    "duration_min": "integer",
    "duration_max": "integer",
    "released_after": "timestamp with time zone",
    "filters": "text[]",
}
"""Arguments that every list ends with, and their types; ``tag_ids`` and ``exclude`` are among those before."""

_FILTERS = ", ".join(FILTERS.values())

ROUTINES = {
    "embed_user(boolean, uuid)": 0,
    "update_user_features(uuid)": 1,
    "get_user_embedding_features(uuid)": 1,
    "get_user_embedding_feature_batch(integer, integer, uuid)": 0,
    "get_item_embedding_features(uuid)": 1,
    "get_item_embedding_feature_batch(integer, integer, uuid)": 0,
    f"recommend_videos(integer, uuid[], real, uuid[], boolean, {_FILTERS}, uuid)": 0,
    f"similar_videos(uuid, integer, real, uuid[], uuid[], {_FILTERS})": 1,
    "log_shown(jsonb)": 1,
    f"next_videos(integer, uuid[], uuid[], boolean, {_FILTERS})": 0,
    f"recommend_from(uuid[], uuid[], integer, uuid[], real, uuid[], boolean, {_FILTERS})": 1,
    f"popular_videos_now(integer, uuid[], uuid[], {_FILTERS})": 0,
    f"trending_videos(integer, interval, uuid[], uuid[], {_FILTERS})": 0,
    "claim_session(uuid[], uuid[])": 1,
    "rank_candidates(uuid[], boolean)": 1,
    "set_choices(boolean, boolean, text[], uuid[], uuid[], uuid)": 0,
    "export_user_data(uuid)": 0,
}
"""Signatures of the routines that we create in schema ``public``, and the fewest arguments of a call."""

ARGUMENTS = {
    "embed_user": ("force", "p_user_id"),
    "update_user_features": ("p_user_id",),
    "get_user_embedding_features": ("user_id",),
    "get_user_embedding_feature_batch": ("limit", "offset", "after"),
    "get_item_embedding_features": ("video_id",),
    "get_item_embedding_feature_batch": ("limit", "offset", "after"),
    "recommend_videos": ("limit", "tag_ids", "diversity", "exclude", "because", *FILTERS, "p_user_id"),
    "similar_videos": ("video_id", "limit", "diversity", "tag_ids", "exclude", *FILTERS),
    "log_shown": ("shown",),
    "next_videos": ("limit", "tag_ids", "exclude", "because", *FILTERS),
    "recommend_from": ("liked", "noped", "limit", "tag_ids", "diversity", "exclude", "because", *FILTERS),
    "popular_videos_now": ("limit", "tag_ids", "exclude", *FILTERS),
    "trending_videos": ("limit", "window", "tag_ids", "exclude", *FILTERS),
    "claim_session": ("liked", "noped"),
    "rank_candidates": ("video_ids", "because"),
    "set_choices": (
        "personalised",
        "trained_on",
        "never_makers",
        "never_tag_ids",
        "never_performer_ids",
        "p_user_id",
    ),
    "export_user_data": ("p_user_id",),
}
"""Names of their arguments, by which PostgREST chooses among routines of the same name."""

INDEXES = {
    "videos": (
        "videos_published_at_idx",
        "videos_maker_idx",
        "videos_series_idx",
        "videos_price_idx",
        "videos_duration_seconds_idx",
        "videos_product_released_at_idx",
        "videos_distribution_started_at_idx",
    ),
    "video_tags": ("video_tags_tag_id_idx",),
    "video_performers": ("video_performers_performer_id_idx",),
    "user_video_decisions": ("user_video_decisions_video_id_idx",),
}
"""Names of the indexes of a table that we create."""

NAMES = ("user_features", "user_embeddings", "video_embeddings")
"""Relations that we create in ``public`` if the name is free, or else only in ``two_tower``, unless names are taken."""

IN_TWO_TOWER = {
    "user_features": "two_tower.user_features",
    "user_embeddings": "two_tower.active_user_embeddings",
    "video_embeddings": "two_tower.active_video_embeddings",
}
"""The relations in ``two_tower`` that exist in any case, and that the public names show."""

ASIDE = "_before_two_tower"
"""Suffix of a relation or routine of the application while ``--take-names`` uses its name."""

UUID, TEXT, NUMBER, TIME = "uuid", "text", "a number", "a date or time"

COLUMNS: dict[str, dict[str, str]] = {
    "videos": {
        "id": UUID,
        "product_url": TEXT,
        "title": TEXT,
        "description": TEXT,
        "maker": TEXT,
        "label": TEXT,
        "series": TEXT,
        "source": TEXT,
        "thumbnail_url": TEXT,
        "price": NUMBER,
        "duration_seconds": NUMBER,
        "distribution_started_at": TIME,
        "product_released_at": TIME,
        "published_at": TIME,
        "created_at": TIME,
    },
    "tags": {"id": UUID, "name": TEXT},
    "performers": {"id": UUID, "name": TEXT},
    "video_tags": {"video_id": UUID, "tag_id": UUID},
    "video_performers": {"video_id": UUID, "performer_id": UUID},
    "user_video_decisions": {"user_id": UUID, "video_id": UUID, "decision_type": TEXT, "created_at": TIME},
}
"""Required columns of the application's tables. ``profiles`` is checked separately: its key may be ``id``."""

KEYS = {
    "videos": ("id",),
    "tags": ("id",),
    "performers": ("id",),
    "video_tags": ("video_id", "tag_id"),
    "video_performers": ("video_id", "performer_id"),
    "user_video_decisions": ("user_id", "video_id"),
}
"""Columns that must be unique together and not null."""

TRIGGERED = ("user_video_decisions", "videos", "video_tags", "video_performers")
"""Tables that get triggers."""

TRIGGERS = tuple(f"two_tower_{what}" for what in ("insert", "update", "delete", "truncate", "row"))
"""Their names on each of these tables."""

READ = (*COLUMNS, "profiles")
"""Tables of the application that our routines read with the rights of the routines' owner."""
