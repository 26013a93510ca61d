-- Granted to nobody: only the owner may set what runs as the owner.
create or replace function two_tower.set_filter(name text, condition text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
#variable_conflict use_column
begin
    if set_filter.name is null or set_filter.name !~ '^[a-z][a-z0-9_]{0,62}$' then
        raise exception 'a filter cannot be called %', coalesce(quote_literal(set_filter.name), 'null')
            using errcode = '22023', hint = 'A name has small letters, digits and underscores, and begins with a letter.';
    end if;
    if btrim(set_filter.condition) = '' then
        raise exception 'the condition is empty' using errcode = '22023',
            hint = 'Say which videos v pass, or null for no such filter: select two_tower.set_filter(''in_stock'', ''v.stock > 0'').';
    end if;
    begin
        delete from two_tower.named_filters f where f.name = set_filter.name;
        insert into two_tower.named_filters (name, condition)
        select set_filter.name, set_filter.condition where set_filter.condition is not null;
        perform two_tower.compile_filters();
        -- A condition that compiles may still fail on a row.
        perform count(*) from public.videos v cross join lateral two_tower.passing_named(set_filter.name, v.id);
    exception when others then
        raise exception 'videos cannot be filtered by that condition: %', sqlerrm using errcode = '22023',
            hint = 'Write a condition on the columns of public.videos v, with other names qualified.';
    end;
end
$func$;

comment on function two_tower.set_filter(text, text) is
'Defines a filter that clients name in the argument filters of every list, as a condition on public.videos v; null removes it. Only '
'for the owner. 22023 if it does not compile';
