-- SECURITY DEFINER: a cascade fires triggers as whoever deletes the user.
create or replace function two_tower.forget_impressions() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    delete from two_tower.impressions i where i.user_id in (select o.user_id from old_rows o);
    return null;
end
$func$;

comment on function two_tower.forget_impressions() is 'Trigger: deletes a user''s impressions with the user';

create or replace trigger two_tower_forget after delete on two_tower.impression_users
referencing old table as old_rows for each statement execute function two_tower.forget_impressions();
