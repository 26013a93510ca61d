-- Embeddings by model version, one partition each, created by two_tower.create_partitions().
-- depends: 0005.models

-- No foreign key to the user or the video: a deletion is a change like any other, and the next refresh removes the vector. With a key, a
-- refresh would have to wait for deletions, or fail because of them.
--
-- length: of a user's sum before it is scaled to 1; weights of neighbours are divided by it. Null if the user tower is no sum.
-- placed: whether anything is known that places a video. All videos without have the same place, where the search of an index gets stuck.
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
'What a like and a nope of each video adds to a user, one partition per model version; null if nothing';

alter table two_tower.user_embeddings enable row level security;
alter table two_tower.video_embeddings enable row level security;
alter table two_tower.video_tastes enable row level security;

revoke all on two_tower.user_embeddings, two_tower.video_embeddings, two_tower.video_tastes from public, anon, authenticated, service_role;

create policy two_tower_own on two_tower.user_embeddings for select to authenticated using (user_id = (select auth.uid()));

-- A vector is visible to those who may see the video: the application's policies on its videos apply here, too. A sub-select is looked up
-- by key for each row; exists() would be hashed, with the whole catalogue.
create policy two_tower_catalogue on two_tower.video_embeddings for select to authenticated
using ((select true from public.videos v where v.id = video_id));

create policy two_tower_viewer on two_tower.user_embeddings for select to two_tower_viewer using (true);
create policy two_tower_viewer on two_tower.video_embeddings for select to two_tower_viewer using (true);

-- Tables of the application with the names of the public views stay, unless the operator requests the names.
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
