-- Granted to nobody: only the owner may say what of a profile a model learns from, and make triggers.
create or replace function two_tower.set_profile_inputs(columns text[]) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_kind "char" := (select c.relkind from pg_catalog.pg_class c where c.oid = 'public.profiles'::regclass);
    v_name text;
begin
    foreach v_name in array coalesce(columns, '{}') loop
        if v_name is null or v_name !~ '^[a-z][a-z0-9_]{0,54}$' then
            raise exception 'a column called % cannot be an input', coalesce(quote_literal(v_name), 'null')
                using errcode = '22023', hint = 'A name has small letters, digits and underscores, begins with a letter, and has 55 of them at most.';
        end if;
        if not exists (
            select from pg_catalog.pg_attribute a
            where a.attrelid = 'public.profiles'::regclass and a.attname = v_name and a.attnum > 0 and not a.attisdropped
        ) then
            raise exception 'public.profiles has no column %', v_name using errcode = '22023', hint = (
                select 'It has ' || string_agg(a.attname, ', ' order by a.attnum) || '.' from pg_catalog.pg_attribute a
                where a.attrelid = 'public.profiles'::regclass and a.attnum > 0 and not a.attisdropped
            );
        end if;
        if (
            select a.atttypid = 'json'::regtype from pg_catalog.pg_attribute a
            where a.attrelid = 'public.profiles'::regclass and a.attname = v_name
        ) then
            raise exception 'the column % is of type json, whose values need not be readable', v_name using errcode = '22023',
                hint = format('alter table public.profiles alter %1$I type jsonb using %1$I::jsonb', v_name);
        end if;
    end loop;
    if cardinality(columns) > 0 and v_kind not in ('r', 'p') then
        raise exception 'public.profiles is no table, and tells nobody of its changes' using errcode = '22023',
            hint = 'Keep what is to be an input in a table of that name.';
    end if;
    delete from two_tower.profile_inputs i where i.name <> all (coalesce(columns, '{}'));
    insert into two_tower.profile_inputs (name) select distinct c.name from unnest(columns) as c (name) on conflict do nothing;
    perform two_tower.compile_profile_keys();
    perform two_tower.make_triggers();
    -- Everybody, as log_truncated_decisions() has it, where a version reads what has changed now.
    insert into two_tower.user_change_log (user_id)
    select '00000000-0000-0000-0000-000000000000'
    where exists (select from unnest(two_tower.live_versions()) as v (version) where two_tower.reads_profiles(v.version));
end
$func$;

comment on function two_tower.set_profile_inputs(text[]) is
'Sets which columns of public.profiles user towers read, from the next training on; null or empty for none. A column of an array, '
'or of JSON with '
'one, has several keys. Only for the owner. 22023 for a name that is not a column';
