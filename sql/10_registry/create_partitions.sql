-- Attaching an empty table takes a lock on the parent that readers and writers do not feel (SHARE UPDATE EXCLUSIVE), and
-- from then on refreshes keep the new version current while its backfill runs. The HNSW index comes after the fill.
create or replace function two_tower.create_partitions(p_version text) returns void
language plpgsql volatile security invoker set search_path = ''
as $func$
declare
    v_number int;
    v_parent text;
    v_partition text;
begin
    select number into strict v_number from two_tower.model_versions where version = p_version;
    foreach v_parent in array array['user_embeddings', 'video_embeddings'] loop
        v_partition := format('%s_%s', v_parent, v_number);
        if to_regclass('two_tower.' || v_partition) is null then
            execute format('create table two_tower.%I (like two_tower.%I including all) with (fillfactor = 90)', v_partition, v_parent);
            execute format('alter table two_tower.%I enable row level security', v_partition);
            execute format('alter table two_tower.%I attach partition two_tower.%I for values in (%L)', v_parent, v_partition, p_version);
        end if;
    end loop;
end
$func$;

comment on function two_tower.create_partitions(text) is
'Makes and attaches the empty partitions of a version, unless they exist';
