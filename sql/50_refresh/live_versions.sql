-- What the caller's snapshot says may be old: the tables are looked up as they are now, so that nothing is written for a version whose
-- tables a retirement has dropped since. In plpgsql as active_version().
create or replace function two_tower.live_versions() returns text[]
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    return array(
        select m.version from two_tower.model_versions m
        where m.state in ('active', 'staged', 'standby') and m.attached_at is not null and m.user_engine <> 'given'
            and to_regclass('two_tower.user_embeddings_' || m.number) is not null
        order by m.number
    );
end
$func$;

comment on function two_tower.live_versions() is
'The versions whose vectors every refresh writes: a rollback must lose no freshness';
