create or replace view two_tower.active_user_embeddings with (security_invoker = true) as
select e.user_id, e.embedding, e.model_version, e.updated_at
from two_tower.user_embeddings e
where e.model_version = (select two_tower.own_version());

comment on view two_tower.active_user_embeddings is 'User vectors of the version that serves the reader; users see only their own';

create or replace view two_tower.active_video_embeddings with (security_invoker = true) as
select e.video_id, e.embedding, e.model_version, e.updated_at, e.placed
from two_tower.video_embeddings e
where e.model_version = (select two_tower.own_version());

comment on view two_tower.active_video_embeddings is
'Video vectors of the version that serves the reader, of videos that the reader may see; placed is false if nothing is known about a video';

-- The names that clients know, unless they are the application's.
do $names$
declare
    v_name text;
    v_made boolean;
begin
    foreach v_name in array array['user_embeddings', 'video_embeddings'] loop
        -- One that reads nothing of ours is the application's, made since in the place of ours.
        v_made := exists (select from two_tower.created_objects o where o.kind = 'view' and o.name = 'public.' || v_name)
            and exists (
                select from pg_catalog.pg_rewrite w
                join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = w.oid
                where w.ev_class = to_regclass('public.' || v_name) and d.refobjid = to_regclass('two_tower.active_' || v_name)
            );
        if not v_made and to_regclass('public.' || v_name) is not null then
            continue;
        end if;
        execute format('create or replace view public.%I with (security_invoker = true) as select * from two_tower.%I', v_name, 'active_' || v_name);
        execute format(
            'comment on view public.%I is %L', v_name, obj_description(to_regclass('two_tower.active_' || v_name), 'pg_class')
        );
        execute format('revoke all on public.%I from public, anon, authenticated, service_role, two_tower_viewer', v_name);
        execute format('grant select on public.%I to authenticated, service_role, two_tower_viewer', v_name);
        insert into two_tower.created_objects values ('view', 'public.' || v_name) on conflict do nothing;
    end loop;
end
$names$;
