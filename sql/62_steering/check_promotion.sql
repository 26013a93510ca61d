-- SECURITY DEFINER: whoever writes promotions need not be able to call what compiles filters.
--
-- An invalid promotion is refused when it is written, since it would make lists fail for everybody. Filters are stored
-- without empty conditions, so that readers need not check for them.
create or replace function two_tower.check_promotion() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_column text;
    v_filter jsonb;
    v_unknown text;
begin
    foreach v_column in array array['videos', 'segment'] loop
        v_filter := case v_column when 'videos' then new.videos else new.segment end;
        continue when v_filter is null;
        if jsonb_typeof(v_filter) <> 'object' then
            raise exception 'promotions.% must be an object of filters, such as {"makers": ["Nova"]}', v_column using errcode = '22023';
        end if;
        select k.name into v_unknown
        from jsonb_object_keys(v_filter) as k (name)
        where k.name not in (
            select a.attname from pg_catalog.pg_attribute a
            where a.attrelid = 'two_tower.video_filter'::regclass and a.attnum > 0 and not a.attisdropped and a.attname not in ('among', 'by_viewer', 'viewer_id')
        )
        order by k.name limit 1;
        if found then
            raise exception 'promotions.% has %, which is no filter of a list', v_column, v_unknown using errcode = '22023',
                hint = 'The filters are those that recommend_videos() takes, such as tag_ids, makers or price_max.';
        end if;
        begin
            perform two_tower.compile_filter(jsonb_populate_record(null::two_tower.video_filter, v_filter), null);
        exception when data_exception then
            raise exception 'promotions.% is no filter: %', v_column, sqlerrm using errcode = '22023';
        end;
        select nullif(coalesce(jsonb_object_agg(f.name, f.value), '{}'), '{}') into v_filter
        from jsonb_each(v_filter) as f (name, value) where f.value not in ('null', '[]');
        if v_column = 'videos' then
            new.videos := v_filter;
        else
            new.segment := v_filter;
        end if;
    end loop;
    return new;
end
$func$;

comment on function two_tower.check_promotion() is
'Trigger: refuses filters that a list would refuse (22023), and removes empty conditions from them';

create or replace trigger two_tower_check before insert or update on two_tower.promotions
for each row execute function two_tower.check_promotion();
