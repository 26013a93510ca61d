-- The parts of a version are written when it is registered, and go with it.
create or replace function two_tower.model_part_frozen() returns trigger
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    if tg_op = 'DELETE' and not exists (select from two_tower.model_versions m where m.version = old.model_version) then
        return old;
    end if;
    raise exception 'model % is registered, and what is registered does not change', old.model_version
        using errcode = '55000', hint = 'Register what is new under another version.';
end
$func$;

comment on function two_tower.model_part_frozen() is 'Trigger: refuses to change or delete a part of a registered version';

create or replace trigger two_tower_frozen before update or delete on two_tower.model_files
for each row execute function two_tower.model_part_frozen();

create or replace trigger two_tower_frozen before update or delete on two_tower.model_documents
for each row execute function two_tower.model_part_frozen();

create or replace trigger two_tower_frozen before update or delete on two_tower.model_segments
for each row execute function two_tower.model_part_frozen();

create or replace trigger two_tower_frozen before update or delete on two_tower.vocabularies
for each row execute function two_tower.model_part_frozen();

create or replace trigger two_tower_frozen before update or delete on two_tower.model_inputs
for each row execute function two_tower.model_part_frozen();
