-- Runs of letters and digits, in lower case, each once. Scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer)
-- come as pairs of characters that follow each other; a single one stands for itself. Half and full width, ligatures and the like are one
-- (NFKC). What a letter is, is said by code points, and what its lower case is, by ICU: \w and lower() depend on the database's collation, and in
-- "C" know ASCII alone.
--
-- The text is cut, so that no description costs more than others.
create or replace function two_tower.words_of(p_text text) returns setof text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
-- The body is read when it is called.
set standard_conforming_strings = on
as $func$
    with runs as (
        select m.run[1] as run, m.run[2] as unspaced
        from regexp_matches(
            lower(left(normalize(left(p_text, 4000), nfkc), 4000) collate pg_catalog."und-x-icu") collate "C",
            '([^\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00bf\u00d7\u00f7\u0e00-\u0eff\u1000-\u109f\u1680\u1780-\u17ff\u2000-\u303f'
            '\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffff\U00020000-\U0003ffff]+)'
            '|([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf'
            '\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+)',
            'g'
        ) as m (run)
    )
    select r.run from runs r where r.run is not null
    union
    select c.character || coalesce(c.next, '')
    from runs r
    cross join lateral (
        select l.character, lead(l.character) over (order by l.n) as next, l.n
        from unnest(string_to_array(r.unspaced, null)) with ordinality as l (character, n)
    ) as c
    where c.next is not null or c.n = 1
$func$;

comment on function two_tower.words_of(text) is
'The words of a text, each once, in lower case; pairs of characters in scripts without spaces between words';
