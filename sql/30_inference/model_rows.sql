-- What two_tower.model_weights holds. Positions are those of the raw input, from 1.
--   user  row        what one of the input at this position adds to a taste; rows of zeros are left out
--         bias       (position 0) the taste of somebody of whom nothing is known
--   item  own        the place of the video whose id is the input at this position
--         centre     the content layer: -2 times what the input at this position has in each centre, a vector of the layer's width
--         known      the same of "this number is known", for the numbers at positions 1, 2, 3
--         scale      what the input at this position is multiplied with before the layer reads it; 1 where there is no row
--         square     (0) the squared length of each centre
--         outward    (1 to 127) what each unit of the layer adds to that entry of a place
--         bias       (0) the place of a video that is near to no centre
--         mean, divisor, used  (0) of the numbers: log1p is standardised by them, and one that is not used counts as unknown
--         decay      (0) -1 / (2 width^2) of the Gaussian units
create or replace function two_tower.model_rows(p_version text, p_tower text, p_part text)
returns table (at int, weight extensions.vector)
language sql stable parallel safe security invoker
as $func$
    select w.position, w.weight from two_tower.model_weights w
    where w.model_version operator(pg_catalog.=) p_version and w.tower operator(pg_catalog.=) p_tower and w.part operator(pg_catalog.=) p_part
$func$;

comment on function two_tower.model_rows(text, text, text) is 'The rows of one part of a tower';
