-- SECURITY DEFINER: service_role imports reviews and may not read auth.users.
create or replace function two_tower.link_reviewers() returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $func$
declare
    v_linked bigint := 0;
begin
    -- A user who is being deleted holds up the check of the foreign key, and fails it; the next time there is no such user.
    for v_try in 1..3 loop
        begin
            update two_tower.reviews r set user_id = r.reviewer_id
            where r.user_id is null and exists (select from auth.users u where u.id = r.reviewer_id);
            get diagnostics v_linked = row_count;
            exit;
        exception
            when foreign_key_violation then null;
            when lock_not_available or deadlock_detected then exit;
        end;
    end loop;
    return v_linked;
end
$func$;

comment on function two_tower.link_reviewers() is
'Links reviewers to users, so that a deleted user''s reviews are deleted too; how many reviews were linked';
