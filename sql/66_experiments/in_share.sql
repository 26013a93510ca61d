-- By a hash, so that nothing is written down of any user, and a user stays where he is. The experiment's number is in it: who was in the
-- share of one experiment is in that of the next as likely as anybody. MD5, since it is the same in every release and on every machine.
-- Not a string, so that it is expanded where it is called.
create or replace function two_tower.in_share(p_user_id uuid, p_experiment int, p_share double precision) returns boolean
language sql immutable parallel safe security invoker
return (
    -- The first 32 bits, as a share of all there are.
    ('x' || substr(md5(p_experiment::text || ' ' || p_user_id::text), 1, 8))::bit(32)::bigint / 4294967296::double precision
) < p_share;

comment on function two_tower.in_share(uuid, int, double precision) is
'Whether a user is in a share of the users that an experiment draws; null for nobody';
