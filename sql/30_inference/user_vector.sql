-- Without a set clause, so that these are expanded where they are called. A taste of nobody has no direction, and gets the first axis;
-- the last entry, the norm dimension, is zero for users.
create or replace function two_tower.user_vector(p_taste extensions.vector) returns extensions.halfvec
language sql immutable parallel safe security invoker
return (
    case
        when extensions.vector_norm(p_taste) > 1e-12 then extensions.l2_normalize(p_taste)
        else (array_prepend(1, array_fill(0, array[126])))::extensions.vector
    end operator(extensions.||) '[0]'::extensions.vector
)::extensions.halfvec;

-- What is longer than 1 is cut to 1; the norm dimension has what its length leaves.
create or replace function two_tower.video_vector(p_place extensions.vector) returns extensions.halfvec
language sql immutable parallel safe security invoker
return case
    when extensions.vector_norm(p_place) > 1 then extensions.l2_normalize(p_place) operator(extensions.||) '[0]'::extensions.vector
    else p_place operator(extensions.||) array[
        sqrt(greatest(1 - extensions.vector_norm(p_place) * extensions.vector_norm(p_place), 0))
    ]::extensions.vector
end::extensions.halfvec;

-- pgvector multiplies vectors by vectors. Most factors are 1 and cost nothing.
create or replace function two_tower.times(p_vector extensions.vector, p_factor real) returns extensions.vector
language sql immutable parallel safe security invoker
return case
    when p_factor = 1 then p_vector
    else p_vector operator(extensions.*) array_fill(p_factor, array[coalesce(extensions.vector_dims(p_vector), 1)])::extensions.vector
end;

comment on function two_tower.user_vector(extensions.vector) is
'The vector of a user, of unit length, from the sum over the history';
comment on function two_tower.video_vector(extensions.vector) is 'The vector of a video, of unit length, from its place';
comment on function two_tower.times(extensions.vector, real) is 'A vector, each entry of it multiplied by a number';
