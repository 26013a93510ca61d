create or replace function two_tower.require_model(p_version text) returns text
language plpgsql stable parallel safe security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_version text := coalesce(p_version, two_tower.active_version());
begin
    if v_version is null then
        raise exception 'no model is active' using errcode = '55000', hint = 'Train and activate one: two-tower train, two-tower model activate.';
    end if;
    if p_version is not null and not exists (select from two_tower.model_versions m where m.version = p_version) then
        raise exception 'there is no model version %', v_version using errcode = 'P0002', hint = 'List them: select version, state from two_tower.models.';
    end if;
    return v_version;
end
$func$;

comment on function two_tower.require_model(text) is
'The given version, or the active one for null; 55000 when none is active, P0002 when there is no such version';
