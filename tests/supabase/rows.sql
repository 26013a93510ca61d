-- Rows of the application. Ids are hashes of names, so that each database has the same.

-- Signing up, as Supabase's Auth writes it: empty tokens rather than nulls, an identity beside the user.
set role supabase_auth_admin;
insert into auth.users (
    instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, confirmation_token, recovery_token,
    email_change_token_new, email_change, raw_app_meta_data, raw_user_meta_data, created_at, updated_at
)
select
    '00000000-0000-0000-0000-000000000000', md5(name)::uuid, 'authenticated', 'authenticated', name || '@app.example',
    'no password', '2025-01-01', '', '', '', '', '{"provider": "email", "providers": ["email"]}',
    jsonb_build_object('full_name', name), '2025-01-01', '2025-01-01'
from unnest(array['ada', 'ben', 'cleo']) as name;
insert into auth.identities (id, provider_id, user_id, identity_data, provider, created_at, updated_at)
select
    md5(email || ' identity')::uuid, id::text, id, jsonb_build_object('sub', id, 'email', email), 'email', created_at, updated_at
from auth.users;
reset role;

update public.profiles set username = lower(full_name), updated_at = '2025-02-01' where full_name is not null;

-- 60 are shown; 20 drafts and 10 withdrawn ones have a date of publication that is past, and 10 one that is to come.
insert into public.videos (
    id, product_url, title, description, maker, label, series, source, thumbnail_url, price, duration_seconds, product_released_at,
    published_at, status, internal_notes
)
select
    md5('video ' || n)::uuid, 'https://app.example/videos/' || n, 'Video ' || n, 'About ' || n, 'maker ' || n % 7,
    case when n % 5 > 0 then 'label ' || n % 5 end, case when n % 4 = 0 then 'series ' || n % 3 end, 'app',
    'https://app.example/thumbnails/' || n, n % 30, 60 * n, timestamptz '2024-01-01' + n * interval '1 day',
    case when n between 90 and 99 then timestamptz '2300-01-01' else timestamptz '2025-01-01' + n * interval '1 hour' end,
    case when n between 60 and 79 then 'draft' when n between 80 and 89 then 'withdrawn' else 'published' end, 'note ' || n
from generate_series(0, 99) as n;

insert into public.tags select md5('tag ' || n)::uuid, 'tag ' || n, 'red' from generate_series(0, 9) as n;
insert into public.performers select md5('performer ' || n)::uuid, 'performer ' || n from generate_series(0, 4) as n;
insert into public.video_tags
select md5('video ' || n)::uuid, md5('tag ' || n % 10)::uuid from generate_series(0, 99) as n;
insert into public.video_performers
select md5('video ' || n)::uuid, md5('performer ' || n % 5)::uuid from generate_series(0, 99, 2) as n;

-- Of what is shown, of a draft from when it was shown, and of a withdrawn video.
insert into public.user_video_decisions (user_id, video_id, decision_type, created_at, device)
select md5('ada')::uuid, md5('video ' || n)::uuid, case when n % 4 = 3 then 'nope' else 'like' end, timestamptz '2025-03-01' + n * interval '1 minute', 'phone'
from generate_series(0, 85, 5) as n;
insert into public.user_video_decisions (user_id, video_id, decision_type, created_at)
select md5('ben')::uuid, md5('video ' || n)::uuid, (array['like', 'nope', 'skip'])[1 + n % 3], timestamptz '2025-03-02' + n * interval '1 minute'
from generate_series(0, 50, 2) as n;

insert into public.watch_events (user_id, video_id, seconds)
select md5('ada')::uuid, md5('video ' || n)::uuid, n from generate_series(1, 5) as n;
insert into public.user_features (user_id, liked_tags)
values (md5('ada')::uuid, '{"theirs": 3}'), (md5('ben')::uuid, '{"theirs": 5}');
insert into public.user_embeddings (user_id, embedding)
select user_id, array_fill(0.5::real, array[128])::extensions.vector from public.user_features;
insert into public.video_embeddings (video_id, embedding)
select md5('video ' || n)::uuid, array_fill((1 + n)::real, array[128])::extensions.vector from generate_series(0, 9) as n;
