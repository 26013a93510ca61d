create or replace function two_tower.model_transition() returns trigger
language plpgsql security invoker set search_path = ''
as $func$
begin
    if (old.state, new.state) not in (
        ('candidate', 'staged'), ('candidate', 'rejected'), ('staged', 'active'), ('staged', 'retired'),
        ('active', 'standby'), ('standby', 'active'), ('standby', 'retired')
    ) then
        raise exception 'model % cannot go from % to %', new.version, old.state, new.state using errcode = '55000';
    end if;
    return new;
end
$func$;

comment on function two_tower.model_transition() is 'Trigger: refuses a change of state that the lifecycle does not have';

create or replace trigger two_tower_transition before update of state on two_tower.model_versions
for each row when (old.state is distinct from new.state) execute function two_tower.model_transition();
