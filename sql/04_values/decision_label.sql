-- How a decision reads, whatever type its column has and whichever case it is written in. As text_of() otherwise.
--
-- Likes and nopes are asked for as <> -1, which leaves out other words too: of an inequality the planner expects most rows, as there are.
drop function if exists two_tower.decision_label(text);
create or replace function two_tower.label_of_word(p_word text) returns int
language sql immutable parallel safe security invoker
return case p_word collate "C"
    when 'like' then 1
    when 'nope' then 0
    when 'skip' then -1
    else case lower(btrim(p_word collate "C", e' \t\r\n')) when 'like' then 1 when 'nope' then 0 when 'skip' then -1 end
end;

create or replace function two_tower.decision_label(p_value anyelement) returns int
language sql stable parallel safe security invoker
as $func$ select two_tower.label_of_word(two_tower.text_of(p_value)) $func$;

comment on function two_tower.label_of_word(text) is
'1 for like, 0 for nope, -1 for skip, in any case and with blanks around; null for any other word, which counts as nothing';
comment on function two_tower.decision_label(anyelement) is 'two_tower.label_of_word() of a decision, whatever type its column has';
