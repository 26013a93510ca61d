-- Each branch is one kind of problem; a remedy is a statement, or a command line that begins with two-tower or systemctl.
create or replace view two_tower.problems with (security_invoker = true) as
with status as materialized (
    -- These columns alone: some of the others read every row of features.
    select s.active_version, s.pending_user_changes + s.pending_video_changes as pending, s.lag_seconds, s.mixed_versions
    from two_tower.status s
),

jobs as materialized (
    select * from two_tower.jobs
)

select 'no_model' as what, 'no model version is active: everybody gets what is popular' as detail,
    case
        when exists (select from two_tower.model_versions m where m.state in ('candidate', 'staged')) then 'two-tower model activate'
        when exists (select from two_tower.model_versions m where m.state = 'standby') then 'two-tower model rollback'
        else 'two-tower train'
    end as remedy
from status s where s.active_version is null
union all
select 'lag',
    format(
        'the oldest of %s changes has waited %s s for a refresh, and may wait %s s',
        s.pending, round(s.lag_seconds), two_tower.model_setting('status_max_lag_seconds')
    ),
    'call two_tower.refresh()'
from status s where s.lag_seconds > two_tower.model_setting('status_max_lag_seconds')
union all
select 'job_unscheduled', format('pg_cron does not run %s', string_agg(j.job, ', ' order by j.job)), 'select two_tower.schedule_jobs()'
from jobs j cross join status s
where not j.scheduled and s.active_version is not null
    and coalesce((select t.value <> 'false' from two_tower.settings t where t.name = 'status_expects_jobs'), true)
having count(*) > 0
union all
select 'cron_down', 'no job starts: the launcher of pg_cron was ended, and comes back when PostgreSQL is restarted',
    'systemctl restart postgresql'
from status where exists (select from jobs j where j.scheduled) and not two_tower.cron_running()
union all
select 'job_failing',
    format(
        '%s failed at %s: %s', j.job, to_char(j.last_failure at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
        split_part(j.last_error, e'\n', 1)
    ),
    j.command
from jobs j where j.failing
union all
select 'set_aside',
    format(
        '%s users and %s videos are set aside, the last with: %s', count(*) filter (where f.kind = 'user'),
        count(*) filter (where f.kind = 'video'), split_part((array_agg(f.error order by f.failed_at desc))[1], e'\n', 1)
    ),
    'select two_tower.retry_failures()'
from two_tower.failed_changes f having count(*) > 0
union all
-- The word is a constant, so that `where what <> 'coverage'` spares the reading of all decisions.
select 'coverage', p.detail, p.remedy
from two_tower.count_coverage(two_tower.live_versions()) as c
join two_tower.model_versions m on m.version = c.model_version
cross join lateral two_tower.coverage_problems(
    m.version, m.state, m.backfilled_at is not null, c.missing_videos, c.missing_users
) as p
union all
-- Until all is compared, or what differs is in the change log: another sample need not meet it.
select 'stale',
    format(
        'of %s users and %s videos compared at %s, %s features, %s and %s vectors and %s tastes are not what the rows say',
        v.result ->> 'users', v.result ->> 'videos', to_char(v.started_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
        v.result -> 'differing' ->> 'features', v.result -> 'differing' ->> 'user_vectors',
        v.result -> 'differing' ->> 'video_vectors', v.result -> 'differing' ->> 'tastes'
    ),
    'two-tower verify --repair && two-tower refresh'
from two_tower.job_runs v
where v.job = 'verify' and (v.result ->> 'found')::int > 0 and v.result ->> 'marked' = '0'
    and not exists (
        select from two_tower.job_runs l
        where l.job = 'verify' and l.id > v.id and (l.result ->> 'whole' = 'true' or (l.result ->> 'found')::int > 0)
    )
union all
select 'mixed_versions', format('%s vectors that are served are not of the active version', s.mixed_versions), 'two-tower migrate'
from status s where s.mixed_versions > 0
union all
select 'index', format('the video vectors of model %s have no valid HNSW index', m.version),
    format(
        'create index on two_tower.%I using hnsw (embedding extensions.halfvec_cosine_ops) with (m = 24, ef_construction = 200)',
        'video_embeddings_' || m.number
    )
from two_tower.model_versions m
where m.version = any(two_tower.live_versions())
    and not exists (
        select from pg_catalog.pg_index i
        join pg_catalog.pg_class c on c.oid = i.indexrelid
        join pg_catalog.pg_am a on a.oid = c.relam
        where i.indrelid = to_regclass('two_tower.video_embeddings_' || m.number) and i.indisvalid and a.amname = 'hnsw'
    )
union all
select 'triggers',
    format(
        'changes of %s are not logged: triggers %s are missing, disabled or do not fire in every session', e.relation,
        string_agg(e.name, ', ' order by e.name)
    ),
    'two-tower migrate && two-tower verify --repair && two-tower refresh'
from two_tower.lacking_triggers() as e
group by e.relation
union all
-- What a subscription does not bring, no trigger sees. A worker that fails is started again every few seconds.
select 'subscription',
    format(
        'the subscription %s, which brings changes of %s, %s', s.name,
        string_agg(r.srrelid::regclass::text, ', ' order by r.srrelid::regclass::text),
        case
            when s.subenabled then 'does not run: the server''s log says why'
            else 'is disabled'
        end
    ),
    case
        when s.subenabled then format('select * from pg_catalog.pg_stat_subscription_stats where subname = %L', s.name)
        else format('alter subscription %I enable', s.name)
    end
from (
    select u.oid, u.subname::text collate "default" as name, u.subdbid, u.subenabled from pg_catalog.pg_subscription u
) as s
join pg_catalog.pg_database d on d.oid = s.subdbid and d.datname = current_database()
join pg_catalog.pg_subscription_rel r on r.srsubid = s.oid
where (
    r.srrelid in (select t.relation from two_tower.change_triggers() t)
    -- Models and promotions of a server that publishes them to shards.
    or (select c.relnamespace from pg_catalog.pg_class c where c.oid = r.srrelid) = 'two_tower'::regnamespace
)
    -- A standby of a subscriber has its rows from there.
    and not pg_is_in_recovery()
    and not (
        s.subenabled
        and exists (select from pg_catalog.pg_stat_subscription w where w.subid = s.oid and w.relid is null and w.pid is not null)
    )
group by s.oid, s.name, s.subenabled
union all
select 'columns',
    format('%s has no column %s, which refreshes and lists read', c.relation, string_agg(c.name, ', ' order by c.name)),
    'two-tower migrate'
from (
    select r.relation, unnest(r.names) as name
    from (values
        (
            'public.videos',
            array[
                'id', 'product_url', 'title', 'description', 'maker', 'label', 'series', 'source', 'thumbnail_url', 'price',
                'duration_seconds', 'distribution_started_at', 'product_released_at', 'published_at'
            ]
        ),
        ('public.video_tags', array['video_id', 'tag_id']),
        ('public.video_performers', array['video_id', 'performer_id']),
        ('public.user_video_decisions', array['user_id', 'video_id', 'decision_type', 'created_at'])
    ) as r (relation, names)
) as c
where not exists (
    select from pg_catalog.pg_attribute a where a.attrelid = to_regclass(c.relation) and a.attname = c.name and not a.attisdropped
)
group by c.relation
union all
select 'columns',
    format('%s.%s is of type %s, and refreshes read an id of type uuid', a.attrelid::regclass, a.attname, a.atttypid::regtype),
    'two-tower migrate'
from (values
    ('public.videos', array['id']), ('public.video_tags', array['video_id', 'tag_id']),
    ('public.video_performers', array['video_id', 'performer_id']), ('public.user_video_decisions', array['user_id', 'video_id'])
) as c (relation, names)
join pg_catalog.pg_attribute a on a.attrelid = to_regclass(c.relation) and a.attname::text = any(c.names) and not a.attisdropped
join pg_catalog.pg_type t on t.oid = a.atttypid
where 'uuid'::regtype not in (t.oid, t.typbasetype)
union all
-- The remedy changes no vector: it writes a known word for what these count as now. If they are meant as likes or nopes, use that word instead.
select 'unknown_decisions',
    format(
        'decisions are called %s, and count as nothing until they are called like, nope or skip', array_to_string(array(
            select quote_literal(w.word) from unnest(u.words) as w (word)
        ), ', ')
    ),
    format(
        'update public.user_video_decisions set decision_type = ''skip'' where decision_type::text in (%s); '
        'analyze public.user_video_decisions',
        array_to_string(array(select quote_literal(w.word) from unnest(u.words) as w (word)), ', ')
    )
from two_tower.unknown_decisions() as u (words) where u.words is not null
union all
select 'nothing_shown', h.detail, h.remedy
from two_tower.hidden_catalogue() as h where h.detail is not null;

comment on view two_tower.problems is 'Every present problem, with its remedy; no rows if all is well';
