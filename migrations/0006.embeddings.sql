-- Embeddings by model version, one partition each, made by two_tower.create_partitions().
-- depends: 0005.models

-- An existing table of the public view's name is kept under another one.
do $aside$
declare
    v_table text;
begin
    foreach v_table in array array['user_embeddings', 'video_embeddings'] loop
        if exists (
            select from pg_catalog.pg_class
            where relnamespace = 'public'::regnamespace and relname = v_table and relkind in ('r', 'p')
        ) then
            execute 'alter table public.' || v_table || ' rename to ' || v_table || '_before_two_tower';
            raise notice using message = 'public.' || v_table || ' is kept as public.' || v_table || '_before_two_tower; a view takes its name';
        end if;
    end loop;
end
$aside$;

-- No foreign key to the user or the video: a deletion is a change like any other, and the next refresh removes the vector.
-- A refresh would otherwise have to wait for, or fail with, whoever is deleting.
create table two_tower.user_embeddings (
    model_version text not null,
    user_id uuid not null,
    embedding extensions.halfvec(128) not null,
    input_hash bytea not null,
    updated_at timestamptz not null default now(),
    primary key (model_version, user_id)
) partition by list (model_version);

comment on table two_tower.user_embeddings is 'User vectors, one partition per model version';

create table two_tower.video_embeddings (
    model_version text not null,
    video_id uuid not null,
    embedding extensions.halfvec(128) not null,
    input_hash bytea not null,
    updated_at timestamptz not null default now(),
    primary key (model_version, video_id)
) partition by list (model_version);

comment on table two_tower.video_embeddings is 'Video vectors, one partition per model version';
