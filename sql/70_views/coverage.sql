create or replace view two_tower.coverage with (security_invoker = true) as
with everything as materialized (
    select
        (select count(*) from public.videos) as videos,
        (select count(*) from two_tower.liking_users()) as users
)

select m.version as model_version, m.state, m.backfilled_at is not null as backfilled, e.videos, v.vectors as video_vectors,
    g.videos as missing_videos, e.users + p.users as users, u.vectors as user_vectors, g.users as missing_users,
    case
        when e.videos + e.users + p.users > 0 then 1 - (g.videos + g.users)::double precision / (e.videos + e.users + p.users)
        else 1
    end as share
from two_tower.model_versions m
cross join everything e
cross join lateral (select count(*) as vectors from two_tower.video_embeddings x where x.model_version = m.version) as v
cross join lateral (select count(*) as vectors from two_tower.user_embeddings x where x.model_version = m.version) as u
cross join lateral (select two_tower.count_by_profile(m.version) as users) as p
cross join lateral two_tower.gate_coverage(m.version) as g
where m.version = any(two_tower.live_versions());

comment on view two_tower.coverage is
'Each version that refreshes write, with its vectors, and with what is missing: not in the change log, and not set aside';
