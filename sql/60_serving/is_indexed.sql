drop function if exists two_tower.is_indexed(text);
create or replace function two_tower.is_indexed(p_column text, p_type text default null) returns boolean
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    return exists (
        select from pg_catalog.pg_index i
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indrelid = 'public.videos'::regclass and a.attname = p_column and i.indisvalid and i.indpred is null
            and (
                p_type is null or a.atttypid = to_regtype(p_type) and exists (
                    select from pg_catalog.pg_class c join pg_catalog.pg_am m on m.oid = c.relam where c.oid = i.indexrelid and m.amname = 'btree'
                )
            )
    );
end
$func$;

comment on function two_tower.is_indexed(text, text) is
'Whether an index of public.videos begins with this column; with a type, whether the column has this type and an index that finds ranges';
