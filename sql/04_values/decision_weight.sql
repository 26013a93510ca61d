drop function if exists two_tower.decision_weight(bigint, double precision);
-- What a decision counts in everything that a version reads of a user: what it says itself, times what its place makes of it.
-- features.decision_weights() is the same for the trainer.
--
-- A multiple of 2^-24, so that sums of weights are exact, and in no order; at least 2^-20, so that its product with a vector has a value.
-- Exponents are at most 10 (register_model()), so that the power has one. As decision_label() otherwise.
create or replace function two_tower.decision_weight(p_place bigint, p_recency double precision, p_given real) returns real
language sql immutable parallel safe security invoker
return case
    when p_given = 1 and (p_place = 0 or p_recency = 0) then 1::real
    else (greatest(round(power((1 + p_place)::double precision, -p_recency) * p_given * 16777216), 16) / 16777216)::real
end;

comment on function two_tower.decision_weight(bigint, double precision, real) is
'What a decision counts, by its place among those of its user (how many are strictly newer) and by what it says itself';
