-- SECURITY DEFINER: service_role operates the models without owning the tables.
create or replace function two_tower.stage_model(p_version text) returns void
language plpgsql volatile security definer set search_path = ''
as $func$
declare
    v_state text;
begin
    select state into strict v_state from two_tower.model_versions where version = p_version for update;
    if v_state in ('staged', 'active', 'standby') then
        return;
    end if;
    if v_state <> 'candidate' then
        raise exception 'model % is %, and can be neither backfilled nor activated', p_version, v_state using errcode = '55000';
    end if;
    perform two_tower.create_partitions(p_version);
    update two_tower.model_versions set state = 'staged' where version = p_version;
end
$func$;

comment on function two_tower.stage_model(text) is
'Turns a candidate into a staged version, which refreshes write; does nothing for one that is live already';
