-- SECURITY DEFINER: service_role operates the models without owning the tables.
create or replace function two_tower.retire_model(p_version text) returns void
language plpgsql volatile security definer set search_path = ''
as $func$
declare
    v_state text;
    v_parent text;
    v_number int;
begin
    perform two_tower.require_model(p_version);
    select state, number into v_state, v_number from two_tower.model_versions where version = p_version for update;
    if v_state not in ('staged', 'standby') then
        raise exception 'model % is % and cannot be retired', p_version, v_state using errcode = '55000';
    end if;
    update two_tower.model_versions set state = 'retired' where version = p_version;
    foreach v_parent in array array['user_embeddings', 'video_embeddings'] loop
        execute format('drop table if exists two_tower.%I', format('%s_%s', v_parent, v_number));
    end loop;
end
$func$;

comment on function two_tower.retire_model(text) is 'Drops the vectors of a staged or standby version and keeps its record';
