-- If n of N videos pass a filter, the index reads about 20 N / n to find a page, and each takes five times as long as comparing a video
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
'Up to how many videos comparing them one by one is faster than finding the best of them by the index; from the size of the '
'catalogue at the '
'last analyze';
