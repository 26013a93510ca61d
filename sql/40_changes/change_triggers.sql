-- Statements are logged at once. The trigger of a row fires where those of statements do not: in sessions that replicate, and always on a
-- partitioned table, whose partitions have it, too. A TRUNCATE has a trigger of its own wherever it comes from.
create or replace function two_tower.change_triggers() returns table (
    relation regclass, name text, enabled text, definition text, routine regprocedure, old_rows name, new_rows name
)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select c.oid::regclass, 'two_tower_' || e.event, case when e.event = 'truncate' then 'A' else 'O' end::text,
        format(
            'after %s on %s %s for each statement execute function two_tower.log_%s_%s()', e.event, c.oid::regclass, e.referencing, e.done,
            case when k.what = 'attributes' and e.event = 'truncate' then 'videos' else k.what end
        ),
        format(
            'two_tower.log_%s_%s()', e.done, case when k.what = 'attributes' and e.event = 'truncate' then 'videos' else k.what end
        )::regprocedure,
        e.old_rows::name, e.new_rows::name
    from (values ('user_video_decisions', 'decisions'), ('videos', 'videos'), ('video_tags', 'attributes'), ('video_performers', 'attributes'))
        as k (relation, what)
    join pg_catalog.pg_class c on c.oid = to_regclass(format('public.%I', k.relation))
    join (values
        ('insert', 'inserted', null, 'new_rows', 'referencing new table as new_rows'),
        ('update', 'updated', 'old_rows', 'new_rows', 'referencing old table as old_rows new table as new_rows'),
        ('delete', 'deleted', 'old_rows', null, 'referencing old table as old_rows'),
        ('truncate', 'truncated', null, null, '')
    ) as e (event, done, old_rows, new_rows, referencing) on c.relkind <> 'p' or e.event = 'truncate'
    union all
    select c.oid::regclass, 'two_tower_row', case when c.relkind = 'p' then 'A' else 'R' end::text,
        format(
            'after insert or update or delete on %s for each row execute function two_tower.log_row(%L)', c.oid::regclass, k.who
        ),
        'two_tower.log_row()'::regprocedure, null::name, null::name
    from (values ('user_video_decisions', 'user_id'), ('videos', 'id'), ('video_tags', 'video_id'), ('video_performers', 'video_id'))
        as k (relation, who)
    join pg_catalog.pg_class c on c.oid = to_regclass(format('public.%I', k.relation))
    union all
    -- Profiles, where towers may read them: seldom written, so one for each row that always fires.
    select 'public.profiles'::regclass, k.name, 'A', format(k.definition, 'public.profiles'::regclass),
        k.routine::regprocedure, null::name, null::name
    from (values
        (
            'two_tower_row', 'after insert or update or delete on %s for each row execute function two_tower.log_profile()',
            'two_tower.log_profile()'
        ),
        (
            'two_tower_truncate', 'after truncate on %s for each statement execute function two_tower.log_truncated_decisions()',
            'two_tower.log_truncated_decisions()'
        )
    ) as k (name, definition, routine)
    where exists (select from two_tower.profile_inputs)
$func$;

comment on function two_tower.change_triggers() is
'The triggers that the application''s tables must have, and when each fires, as in pg_trigger.tgenabled';

create or replace function two_tower.lacking_triggers() returns table (relation regclass, name text, enabled text, definition text)
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select w.relation, w.name, w.enabled, w.definition
    from two_tower.change_triggers() w
    where not exists (
        select from pg_catalog.pg_trigger t
        where t.tgrelid = w.relation and t.tgname = w.name and t.tgfoid = w.routine and t.tgenabled::text in (w.enabled, 'A')
            and t.tgoldtable is not distinct from w.old_rows and t.tgnewtable is not distinct from w.new_rows
    )
$func$;

comment on function two_tower.lacking_triggers() is
'Those of two_tower.change_triggers() that are missing, or do not fire when they should';
