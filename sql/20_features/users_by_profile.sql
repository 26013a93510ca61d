-- Who is to have a vector of a version beside liking_users(): whose profile has a key that the version knows. Profiles are read last, since
-- that takes longest.
--
-- SECURITY DEFINER: whoever asks how complete the vectors are need not see anybody's profile.
create or replace function two_tower.users_by_profile(
    p_version text, p_after uuid default null, p_limit int default null, p_lacking boolean default false
) returns setof uuid
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    if not two_tower.reads_profiles(p_version) then
        return;
    end if;
    return query
    select u.id
    from (
        select a.user_id as id
        from two_tower.accounts() a
        where a.user_id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
            and not exists (select from two_tower.user_choices c where c.user_id = a.user_id and not c.personalised)
            and not exists (
                select from public.user_video_decisions d join public.videos v on v.id = d.video_id
                where d.user_id = a.user_id and two_tower.decision_label(d.decision_type) = 1
            )
            and not (
                p_lacking and (
                    exists (select from two_tower.user_embeddings e where e.model_version = p_version and e.user_id = a.user_id)
                    or exists (select from two_tower.change_failures f where f.kind = 'user' and f.id = a.user_id)
                )
            )
        order by a.user_id
        offset 0
    ) as u
    where exists (
        select from two_tower.profile_keys(u.id) k
        join two_tower.model_inputs i on i.model_version = p_version and i.tower = 'user' and i.segment = k.kind and i.key = k.key
    )
    limit p_limit;
end
$func$;

-- Who has a vector and no like has it by the profile; so it takes no reading of all profiles.
-- SECURITY DEFINER: the page's role asks, which may see nobody's profile.
create or replace function two_tower.count_by_profile(p_version text) returns bigint
language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp
as $func$
begin
    if not two_tower.reads_profiles(p_version) then
        return 0;
    end if;
    return (
        select count(*) from two_tower.user_embeddings e
        where e.model_version = p_version and e.user_id not in (select l from two_tower.liking_users() as l)
    ) + (select count(*) from two_tower.users_by_profile(p_version, p_lacking => true));
end
$func$;

comment on function two_tower.users_by_profile(text, uuid, int, boolean) is
'Users without a like who should have a vector of a version because of their profile, after p_after in id order; with '
'p_lacking those who '
'have none yet, and are not set aside';
comment on function two_tower.count_by_profile(text) is
'How many users have no like, and have, or should have, a vector of a version because of their profile';
