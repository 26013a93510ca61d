-- What a decision counts in everything that a version reads of a user. A weight of events, where decisions have one, is a factor here.
-- Everybody is to compute the same, hence the bounds: exponents are at most 10, so that the power has a value (register_model()), and a
-- weight is never so small that its product with a vector has none. features.recency_weights() is the same for the trainer.
-- As decision_label() otherwise.
create or replace function two_tower.decision_weight(p_place bigint, p_recency double precision) returns real
language sql immutable parallel safe security invoker
return case
    when p_place = 0 or p_recency = 0 then 1::real
    else greatest(power((1 + p_place)::double precision, -p_recency), 0.000001::double precision)::real
end;

comment on function two_tower.decision_weight(bigint, double precision) is
'What a decision counts, by its place among those of its user: how many are strictly newer';
