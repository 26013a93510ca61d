create or replace view two_tower.coverage with (security_invoker = true) as
select m.version as model_version, m.state, m.backfilled_at is not null as backfilled, e.videos, v.vectors as video_vectors,
    c.missing_videos, c.liking_users + p.users as users, u.vectors as user_vectors, c.missing_users,
    case
        when e.videos + c.liking_users + p.users > 0
            then 1 - (c.missing_videos + c.missing_users)::double precision / (e.videos + c.liking_users + p.users)
        else 1
    end as share,
    c.liking_users
from two_tower.count_coverage(two_tower.live_versions()) as c
join two_tower.model_versions m on m.version = c.model_version
cross join (select count(*) as videos from public.videos) as e
cross join lateral (select count(*) as vectors from two_tower.video_embeddings x where x.model_version = m.version) as v
cross join lateral (select count(*) as vectors from two_tower.user_embeddings x where x.model_version = m.version) as u
cross join lateral (select two_tower.count_by_profile(m.version) as users) as p;

comment on view two_tower.coverage is
'Each version that refreshes write, with its vectors, and with what is missing: not in the change log, and not set aside. users: those '
'with a like (liking_users), and those with a profile that the version reads';
