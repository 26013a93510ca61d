-- SECURITY DEFINER: service_role operates the models without owning the tables.
create or replace function two_tower.finish_backfill(p_version text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_model record;
    v_coverage record;
begin
    select m.number, m.attached_at, m.backfilled_at into strict v_model
    from two_tower.model_versions m where m.version = p_version;
    if v_model.backfilled_at is not null then
        return;
    end if;
    select * into v_coverage from two_tower.gate_coverage(p_version);
    if v_model.attached_at is null or v_coverage.videos + v_coverage.users > 0 then
        raise exception 'the backfill of model % is not complete: it lacks the vectors of % videos and % users',
            p_version, v_coverage.videos, v_coverage.users
            using errcode = '55000', hint = format('Run: call two_tower.backfill_model(%L)', p_version);
    end if;
    execute format('analyze two_tower.%I', format('user_embeddings_%s', v_model.number));
    update two_tower.model_versions set backfilled_at = clock_timestamp() where version = p_version and backfilled_at is null;
end
$func$;

comment on function two_tower.finish_backfill(text) is 'Notes that a version is backfilled; 55000 says what it lacks';
