-- Not SECURITY DEFINER: a role that may activate a model may also read which versions are on standby.
create or replace function two_tower.rollback_model(p_version text default null) returns jsonb
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_version text := p_version;
begin
    if v_version is null then
        select version into v_version from two_tower.model_versions
        -- A version that only an experiment showed to users does not count as the previous one.
        where state = 'standby' and activated_at is not null order by activated_at desc, number desc limit 1;
        if v_version is null then
            raise exception 'there is no version to go back to' using errcode = '55000';
        end if;
    end if;
    return two_tower.activate_model(v_version);
end
$func$;

comment on function two_tower.rollback_model(text) is
'Activates the given version, or the standby version that served last, at once: its vectors are as fresh as the active one''s';
