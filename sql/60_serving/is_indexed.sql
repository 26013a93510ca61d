create or replace function two_tower.is_indexed(p_column text) returns boolean
language sql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
    select exists (
        select from pg_catalog.pg_index i
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indrelid = 'public.videos'::regclass and a.attname = p_column and i.indisvalid and i.indpred is null
    )
$func$;

comment on function two_tower.is_indexed(text) is 'Whether an index of public.videos begins with this column';
