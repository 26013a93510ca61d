-- In plpgsql, and by the tables as they are now, as live_versions().
create or replace function two_tower.given_versions() returns text[]
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    return array(
        select m.version from two_tower.model_versions m
        where m.user_engine = 'given' and m.state in ('active', 'staged', 'standby') and m.attached_at is not null
            and to_regclass('two_tower.user_embeddings_' || m.number) is not null
        order by m.number
    );
end
$func$;

comment on function two_tower.given_versions() is
'The versions whose vectors were computed elsewhere: refreshes write nothing to them, but remove deleted users and videos';
