-- A profile is more than what towers read of it: a row that says the same in those columns is not logged. Where the table has no such key
-- any more, it may be anybody.
--
-- SECURITY DEFINER: whoever may write a profile may not write the log.
create or replace function two_tower.log_profile() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $func$
declare
    c_key constant text := two_tower.account_key();
    v_old jsonb;
    v_new jsonb;
begin
    if tg_op <> 'INSERT' then
        v_old := to_jsonb(old);
    end if;
    if tg_op <> 'DELETE' then
        v_new := to_jsonb(new);
    end if;
    if tg_op = 'UPDATE' and v_old -> c_key is not distinct from v_new -> c_key
        and not exists (select from two_tower.profile_inputs i where v_old -> i.name is distinct from v_new -> i.name)
    then
        return null;
    end if;
    insert into two_tower.user_change_log (user_id)
    select distinct two_tower.id_of_word(r.profile ->> c_key) from unnest(array[v_old, v_new]) as r (profile) where r.profile is not null;
    return null;
end
$func$;

comment on function two_tower.log_profile() is
'Trigger: logs the user of a profile that came, went or changed in what towers read';
