-- By a hash, so that nothing is stored about any user, and a user stays in the same share. It includes the experiment's number, so that the
-- shares of two experiments are independent. MD5, since it is the same in every release and on every machine.
-- Not a string, so that it is expanded where it is called.
create or replace function two_tower.in_share(p_user_id uuid, p_experiment int, p_share double precision) returns boolean
language sql immutable parallel safe security invoker
return (
    -- The first 32 bits, as a share of all there are.
    ('x' || substr(md5(p_experiment::text || ' ' || p_user_id::text), 1, 8))::bit(32)::bigint / 4294967296::double precision
) < p_share;

comment on function two_tower.in_share(uuid, int, double precision) is
'Whether a user is in the share of an experiment, which is drawn by hash; null for null';
