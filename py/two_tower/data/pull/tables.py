"""The tables that a pull copies, and how they depend on each other."""

from __future__ import annotations

from dataclasses import dataclass, field

from psycopg import sql

from two_tower.limits import LONGEST_ADDRESS, LONGEST_NAME


@dataclass(frozen=True)
class PulledTable:
    """A table, its key, and the columns that are copied if both sides have them."""

    name: str
    key: tuple[str, ...]
    columns: dict[str, str]
    """Name → the type in which it is transferred. Columns of the key come first."""
    user: bool = False
    """Whether the first column is the id of a user."""
    parents: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Column → the table and the column that it refers to."""
    required: tuple[str, ...] = ()
    """Columns without which nothing can be pulled; none if the table may be missing."""
    needed: tuple[str, ...] = ()
    """Columns, besides those of the key, whose values a row needs to be useful."""
    longest: dict[str, int] = field(default_factory=dict)
    """Columns in an index here, and the most bytes in UTF-8 that it takes."""

    @property
    def schema(self) -> str:
        return self.name.split(".")[0]

    @property
    def relation(self) -> str:
        return self.name.split(".")[1]

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.relation)

    @property
    def staged(self) -> sql.Identifier:
        return sql.Identifier("pg_temp", f"pulled_{self.relation}")


_VIDEO = {"video_id": ("public.videos", "id")}

TIME = "timestamptz"

USERS = "auth.users"

WEIGHT = "weight"
"""A decision's own weight, which is transferred within its bounds."""

TABLES = (
    PulledTable(USERS, ("id",), {"id": "uuid", "created_at": TIME}, user=True),
    PulledTable(
        "public.tags", ("id",), {"id": "uuid", "name": "text"}, needed=("name",), longest={"name": LONGEST_NAME}
    ),
    PulledTable(
        "public.performers", ("id",), {"id": "uuid", "name": "text"}, needed=("name",), longest={"name": LONGEST_NAME}
    ),
    PulledTable(
        "public.videos",
        ("id",),
        {
            "id": "uuid", "product_url": "text", "title": "text", "description": "text", "maker": "text",
            "label": "text", "series": "text", "source": "text", "thumbnail_url": "text", "image_urls": "text[]",
            "price": "numeric", "duration_seconds": "int4", "distribution_started_at": TIME,
            "product_released_at": TIME,
            "published_at": TIME, "created_at": TIME,
        },
        required=("id", "product_url"),
        needed=("product_url",),
        longest={"product_url": LONGEST_ADDRESS},
    ),
    PulledTable(
        "public.video_tags",
        ("video_id", "tag_id"),
        {"video_id": "uuid", "tag_id": "uuid"},
        parents=_VIDEO | {"tag_id": ("public.tags", "id")},
    ),
    PulledTable(
        "public.video_performers",
        ("video_id", "performer_id"),
        {"video_id": "uuid", "performer_id": "uuid"},
        parents=_VIDEO | {"performer_id": ("public.performers", "id")},
    ),
    PulledTable(
        "two_tower.content_vectors",
        ("video_id", "encoder"),
        {"video_id": "uuid", "encoder": "text", "vector": "real[]"},
        parents=_VIDEO,
        needed=("vector",),
    ),
    PulledTable(
        "public.profiles",
        ("user_id",),
        {"user_id": "uuid", "created_at": TIME},
        user=True,
        parents={"user_id": (USERS, "id")},
    ),
    PulledTable(
        "public.user_video_decisions",
        ("user_id", "video_id"),
        {"user_id": "uuid", "video_id": "uuid", "decision_type": "text", "created_at": TIME, WEIGHT: "real"},
        user=True,
        parents=_VIDEO | {"user_id": (USERS, "id")},
        required=("user_id", "video_id", "decision_type"),
        needed=("decision_type",),
    ),
    PulledTable(
        "two_tower.reviews",
        ("reviewer_id", "video_id"),
        {"reviewer_id": "uuid", "video_id": "uuid", "stars": "real", "created_at": TIME},
        user=True,
        parents=_VIDEO,
        needed=("stars",),
    ),
    # The database that trains must know who opted out of training.
    PulledTable(
        "two_tower.user_choices",
        ("user_id",),
        {"user_id": "uuid", "personalised": "bool", "trained_on": "bool"},
        user=True,
        parents={"user_id": (USERS, "id")},
        needed=("personalised", "trained_on"),
    ),
)  # fmt: skip
"""Parents before children."""
