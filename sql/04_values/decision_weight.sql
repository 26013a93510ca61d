drop function if exists two_tower.decision_weight(bigint, double precision);
-- The weight of a decision in everything that a version reads of a user: its own weight, times that of its recency.
-- features.decision_weights() is the same for the trainer.
--
-- A multiple of 2^-24, so that sums of weights are exact in any order; at least 2^-20, so that its product with a vector does not underflow.
-- Exponents are at most 10 (register_model()), so that the power does not either. Otherwise as decision_label().
create or replace function two_tower.decision_weight(p_place bigint, p_recency double precision, p_given real) returns real
language sql immutable parallel safe security invoker
return case
    when p_given = 1 and (p_place = 0 or p_recency = 0) then 1::real
    else (greatest(round(power((1 + p_place)::double precision, -p_recency) * p_given * 16777216), 16) / 16777216)::real
end;

comment on function two_tower.decision_weight(bigint, double precision, real) is
'The weight of a decision, by its place among its user''s decisions (how many are strictly newer) and its own weight';
