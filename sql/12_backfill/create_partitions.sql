-- Tables of their own, attached only when two_tower.attach_partitions() has built the index: until then nobody reads or writes
-- them but the backfill.
create or replace function two_tower.create_partitions(p_version text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
as $func$
declare
    v_number int;
    v_parent text;
    v_partition text;
begin
    select number into strict v_number from two_tower.model_versions where version = p_version;
    foreach v_parent in array array['user_embeddings', 'video_embeddings', 'video_tastes'] loop
        v_partition := format('%s_%s', v_parent, v_number);
        if to_regclass('two_tower.' || v_partition) is null then
            execute format('create table two_tower.%I (like two_tower.%I including all) with (fillfactor = 90)', v_partition, v_parent);
            perform two_tower.close_partition(v_partition);
        end if;
    end loop;
end
$func$;

comment on function two_tower.create_partitions(text) is 'Creates the empty tables of a version''s vectors and tastes, unless they exist';
