-- SECURITY DEFINER: service_role operates the models without owning the tables.
create or replace function two_tower.activate_model(p_version text, p_force boolean default false) returns jsonb
language plpgsql volatile security definer set search_path = ''
as $func$
declare
    v_previous text;
    v_videos bigint;
    v_users bigint;
begin
    perform two_tower.require_model(p_version);
    -- One activation at a time; readers do not take this lock.
    if not pg_try_advisory_xact_lock(hashtextextended('two_tower.activate', 0)) then
        raise exception 'another activation is under way' using errcode = '55006', hint = 'Try again when it is over.';
    end if;
    v_previous := two_tower.active_version();
    if v_previous is not distinct from p_version then
        return jsonb_build_object('model_version', p_version, 'previous', v_previous, 'changed', false);
    end if;
    if (select state not in ('staged', 'standby') from two_tower.model_versions where version = p_version) then
        raise exception 'model % is not backfilled', p_version
            using errcode = '55000', hint = format('Run: call two_tower.backfill_model(%L)', p_version);
    end if;
    if not p_force then
        select count(*) into v_videos from public.videos v
        where not exists (select from two_tower.video_embeddings e where e.model_version = p_version and e.video_id = v.id);
        select count(*) into v_users from public.user_features f
        where f.like_count > 0
            and not exists (select from two_tower.user_embeddings e where e.model_version = p_version and e.user_id = f.user_id);
        if v_videos + v_users > 0 or (select backfilled_at is null from two_tower.model_versions where version = p_version) then
            raise exception 'model % lacks the vectors of % videos and % users', p_version, v_videos, v_users
                using errcode = '55000', hint = format('Run: call two_tower.backfill_model(%L)', p_version);
        end if;
    end if;
    update two_tower.model_versions set state = 'standby' where state = 'active';
    update two_tower.model_versions set state = 'active', activated_at = now() where version = p_version;
    return jsonb_build_object('model_version', p_version, 'previous', v_previous, 'changed', true);
end
$func$;

comment on function two_tower.activate_model(text, boolean) is
'Makes a backfilled version the one that serves, in one transaction; 55000 says what is missing, p_force goes ahead all the same';
