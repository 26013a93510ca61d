-- One name for the counts, wherever they are: in public, or in two_tower where the application has a table of that name.
do $features$
begin
    if exists (select from two_tower.created_objects o where o.kind = 'table' and o.name = 'public.user_features') then
        create or replace view two_tower.user_features with (security_invoker = true) as
        select f.user_id, f.liked_tags, f.liked_performers, f.updated_at, f.liked_makers, f.liked_labels, f.liked_series,
            f.liked_sources, f.liked_video_ids, f.noped_video_ids, f.like_count, f.nope_count, f.price_sum, f.priced_count
        from public.user_features f;
        comment on view two_tower.user_features is 'public.user_features, which is ours in this database';
    else
        comment on table two_tower.user_features is 'What is counted of each user; public.user_features is the application''s own';
    end if;
end
$features$;
