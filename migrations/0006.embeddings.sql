-- Embeddings by model version, one partition each, made by two_tower.create_partitions().
-- depends: 0005.models

-- No foreign key to the user or the video: a deletion is a change like any other, and the next refresh removes the vector.
-- A refresh would otherwise have to wait for, or fail with, whoever is deleting.
--
-- length: of a user's sum before it is scaled to 1, which is what weights of neighbours are divided by; null where the towers are no sums.
-- placed: whether anything says where a video belongs. Those of which nothing is known all have the same place, where an index loses its way.
--
-- video_tastes: what a like, and a nope, of a video adds to a user, for versions whose users are sums (two_tower.sum_users). In single
-- precision: a user's length is divided out, so weights may have any scale, and a price may be large.
--
-- Keys begin with the user or video: ids are compared faster than names of versions, and a sum looks up a row for each decision.
do $tables$
declare
    v_extensions text := (
        select quote_ident(n.nspname) from pg_catalog.pg_extension e
        join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'
    );
begin
    execute 'create table two_tower.user_embeddings (
        model_version text not null,
        user_id uuid not null,
        embedding ' || v_extensions || '.halfvec(128) not null,
        updated_at timestamptz not null default now(),
        length real,
        primary key (user_id, model_version)
    ) partition by list (model_version)';
    execute 'create table two_tower.video_embeddings (
        model_version text not null,
        video_id uuid not null,
        embedding ' || v_extensions || '.halfvec(128) not null,
        updated_at timestamptz not null default now(),
        placed boolean not null default true,
        primary key (video_id, model_version)
    ) partition by list (model_version)';
    execute 'create table two_tower.video_tastes (
        model_version text not null,
        video_id uuid not null,
        liked ' || v_extensions || '.vector(127),
        noped ' || v_extensions || '.vector(127),
        primary key (video_id, model_version)
    ) partition by list (model_version)';
end
$tables$;

comment on table two_tower.user_embeddings is 'User vectors, one partition per model version';
comment on table two_tower.video_embeddings is 'Video vectors, one partition per model version';
comment on table two_tower.video_tastes is
'What a like and a nope of each video adds to a user, one partition per model version; null where that is nothing';

alter table two_tower.user_embeddings enable row level security;
alter table two_tower.video_embeddings enable row level security;
alter table two_tower.video_tastes enable row level security;

revoke all on two_tower.user_embeddings, two_tower.video_embeddings, two_tower.video_tastes from public, anon, authenticated, service_role;

create policy two_tower_own on two_tower.user_embeddings for select to authenticated using (user_id = (select auth.uid()));

-- A vector is shown to whom the video is: the application's policies on its videos hold here too. A sub-select that is looked up by key, row
-- by row, since exists() would be hashed, with the whole catalogue.
create policy two_tower_catalogue on two_tower.video_embeddings for select to authenticated
using ((select true from public.videos v where v.id = video_id));

create policy two_tower_viewer on two_tower.user_embeddings for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.video_embeddings for select to two_tower_viewer using (true);

-- Tables of the application that bear the names of the public views stay, unless the operator asks for the names.
do $names$
declare
    v_name text;
begin
    if coalesce(current_setting('two_tower.take_names', true), '') = 'on' then
        foreach v_name in array array['user_embeddings', 'video_embeddings'] loop
            if to_regclass('public.' || v_name) is not null then
                execute 'alter table public.' || v_name || ' rename to ' || v_name || '_before_two_tower';
                insert into two_tower.created_objects values ('renamed relation', 'public.' || v_name);
            end if;
        end loop;
    end if;
end
$names$;
