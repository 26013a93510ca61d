-- Not SECURITY DEFINER: whoever may activate a model may also read which ones stand by.
create or replace function two_tower.rollback_model(p_version text default null) returns jsonb
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_version text := p_version;
begin
    if v_version is null then
        select version into v_version from two_tower.model_versions
        -- One that only an experiment showed to users is nothing to go back to.
        where state = 'standby' and activated_at is not null order by activated_at desc, number desc limit 1;
        if v_version is null then
            raise exception 'there is no version to go back to' using errcode = '55000';
        end if;
    end if;
    return two_tower.activate_model(v_version);
end
$func$;

comment on function two_tower.rollback_model(text) is
'Activates the given version, or of those that stand by the one that served last, at once: its vectors are as fresh as the active one''s';
