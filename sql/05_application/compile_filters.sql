-- The body is parsed here and now, as that of eligible().
create or replace function two_tower.compile_filters() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_cases text := (
        select string_agg(format('when %L then (%s)', f.name, f.condition), ' ' order by f.name) from two_tower.named_filters f
    );
begin
    execute format(
        'create or replace function two_tower.passing_named(p_name text, p_video_id uuid) returns setof boolean '
        'language sql stable parallel safe security invoker begin atomic select true%s; end',
        case when v_cases is not null then format(
            ' from public.videos v where v.id = p_video_id and case p_name %s end', v_cases
        ) else ' where false' end
    );
end
$func$;

comment on function two_tower.compile_filters() is 'Creates two_tower.passing_named() from two_tower.named_filters';
