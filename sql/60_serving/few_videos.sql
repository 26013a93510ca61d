-- Where n of N videos pass a filter, the index looks at about 20 N / n to find a page, each of which takes five times as long as to compare one
-- that is known to pass. The two take the same time at the root of 100 N.
create or replace function two_tower.few_videos() returns int
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    return (
        select least(greatest(sqrt(100 * greatest(c.reltuples, 0)), 1000), 10000)::int
        from pg_catalog.pg_class c where c.oid = 'public.videos'::regclass
    );
end
$func$;

comment on function two_tower.few_videos() is
'So many videos are compared one by one sooner than the index finds the best of them among the others; by the size of the catalogue at the '
'last analyze';
