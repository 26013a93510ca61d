-- SECURITY DEFINER: whoever may add weights need not be able to read all versions. Weights and neighbours come before their version is
-- registered, and go when it is retired.
create or replace function two_tower.guard_weights() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    v_version text := (
        select m.version from two_tower.model_versions m
        where m.version in (select c.model_version from changed c) and m.state <> 'retired' limit 1
    );
begin
    if v_version is not null then
        raise exception 'model % is registered, and its weights do not change', v_version
            using errcode = '55000', hint = 'Give other weights a version of their own.';
    end if;
    return null;
end
$func$;

comment on function two_tower.guard_weights() is 'Trigger: refuses changes of the weights of a registered version';

create or replace trigger two_tower_sealed_insert after insert on two_tower.model_weights
referencing new table as changed for each statement execute function two_tower.guard_weights();

create or replace trigger two_tower_sealed_update after update on two_tower.model_weights
referencing old table as changed for each statement execute function two_tower.guard_weights();

create or replace trigger two_tower_sealed_update_to after update on two_tower.model_weights
referencing new table as changed for each statement execute function two_tower.guard_weights();

create or replace trigger two_tower_sealed_delete after delete on two_tower.model_weights
referencing old table as changed for each statement execute function two_tower.guard_weights();

create or replace trigger two_tower_sealed_insert after insert on two_tower.neighbour_lists
referencing new table as changed for each statement execute function two_tower.guard_weights();

create or replace trigger two_tower_sealed_update after update on two_tower.neighbour_lists
referencing old table as changed for each statement execute function two_tower.guard_weights();

create or replace trigger two_tower_sealed_update_to after update on two_tower.neighbour_lists
referencing new table as changed for each statement execute function two_tower.guard_weights();

create or replace trigger two_tower_sealed_delete after delete on two_tower.neighbour_lists
referencing old table as changed for each statement execute function two_tower.guard_weights();

create or replace function two_tower.guard_all_weights() returns trigger
language plpgsql security invoker set search_path = pg_catalog, pg_temp
as $func$
begin
    raise exception 'weights of registered models do not change' using errcode = '55000', hint = 'Retire the versions that are not needed.';
end
$func$;

comment on function two_tower.guard_all_weights() is 'Trigger: refuses a truncate';

create or replace trigger two_tower_sealed_truncate before truncate on two_tower.model_weights
for each statement execute function two_tower.guard_all_weights();

create or replace trigger two_tower_sealed_truncate before truncate on two_tower.neighbour_lists
for each statement execute function two_tower.guard_all_weights();
