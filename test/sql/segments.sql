-- How many segments a text takes.  In databases of its own, of known encodings.
\set main :DBNAME
CREATE DATABASE regression_utf8 ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0;
CREATE DATABASE regression_latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;
CREATE DATABASE regression_sql_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0;
\c regression_utf8
\encoding UTF8
CREATE EXTENSION sendcampaign;

-- by numbers of characters: how many of each
CREATE FUNCTION count_of(VARIADIC parts text[])
RETURNS TABLE (encoding text, units integer, segments integer)
LANGUAGE sql AS $$
    SELECT s.*
    FROM (SELECT string_agg(repeat(parts[i], parts[i + 1]::integer), '' ORDER BY i) AS text
          FROM generate_series(1, cardinality(parts), 2) i) t, sendcampaign.segments(t.text) s
$$;

-- GSM-7: 160 in one, 153 in each of several
SELECT n, s.*
FROM unnest(ARRAY[1, 159, 160, 161, 306, 307, 459, 460, 1600]) n, count_of('0', n::text) s;

-- UCS-2: 70 and 67
SELECT n, s.* FROM unnest(ARRAY[1, 69, 70, 71, 134, 135, 201, 202]) n, count_of('Á', n::text) s;

-- characters of two septets, which are not split
SELECT n, s.* FROM unnest(ARRAY[158, 159, 304, 305]) n, count_of('€', '1', '0', n::text) s;
SELECT n, s.* FROM unnest(ARRAY[79, 80, 81, 152, 153]) n, count_of(']', n::text) s;
SELECT n, s.* FROM unnest(ARRAY[151, 152, 153]) n, count_of('0', n::text, '{', '1', '0', '152') s;
SELECT n, s.*
FROM unnest(ARRAY[151, 152]) n, count_of('0', n::text, '{', '1', '0', '151', '}', '1') s;

-- surrogate pairs, likewise
SELECT n, s.* FROM unnest(ARRAY[68, 69, 132, 133]) n, count_of('😜', '1', '0', n::text) s;
SELECT n, s.* FROM unnest(ARRAY[34, 35, 36, 66, 67, 99, 100]) n, count_of('😜', n::text) s;
SELECT n, s.* FROM unnest(ARRAY[65, 66, 67]) n, count_of('0', n::text, '😜', '1', '0', '66') s;
SELECT n, s.* FROM unnest(ARRAY[65, 66]) n, count_of('0', n::text, '😜', '1', '0', '65') s;

-- one character decides for all; those of two septets are one unit then
SELECT name, s.*
FROM (VALUES ('GSM-7', 'Hello'),
             ('GSM-7, extended', 'Hell[o]'),
             ('Icelandic', 'Góðan daginn'),
             ('c, cedilla', '[ç]'),
             ('backquote', '`'),
             ('tab', E'a\tb'),
             ('line end', E'a\r\nb'),
             ('apostrophe', '’'),
             ('dash', '–'),
             ('no-break space', U&'\00A0'),
             ('byte order mark', U&'\FEFF'),
             ('e, grave', 'è'),
             ('e and grave', U&'e\0300'),
             ('last of the plane', U&'\FFFF'),
             ('first of the next', U&'\+010000'),
             ('last', U&'\+10FFFF'),
             ('emoji', '😜'),
             ('a family', '👩‍👩‍👧‍👦'),
             ('with a colour', '👍🏽'),
             ('flag', '🇮🇸')) t(name, text), sendcampaign.segments(text) s;
SELECT n, s.* FROM unnest(ARRAY[69, 70]) n, count_of('ð', '1', '[', n::text) s;
SELECT s.* FROM count_of('0', '159', '`', '1') s;

-- nothing
SELECT * FROM sendcampaign.segments('');
SELECT * FROM sendcampaign.segments(NULL);

-- the characters of GSM-7, by septets
\pset format unaligned
SELECT s.units AS septets, count(*),
       string_agg(chr(c), '' ORDER BY c) FILTER (WHERE c >= 32) AS printed,
       string_agg(to_hex(c), ' ' ORDER BY c) FILTER (WHERE c < 32) AS others
FROM generate_series(1, 65535) c, LATERAL (SELECT * FROM sendcampaign.segments(chr(c)) OFFSET 0) s
WHERE c NOT BETWEEN 55296 AND 57343 AND s.encoding = 'GSM-7'
GROUP BY 1 ORDER BY 1;
\pset format aligned

-- all of those in one text, and all else
SELECT (sendcampaign.segments(string_agg(chr(c), ''))).*
FROM generate_series(1, 65535) c
WHERE c NOT BETWEEN 55296 AND 57343 AND (sendcampaign.segments(chr(c))).encoding = 'GSM-7';
SELECT DISTINCT s.*
FROM generate_series(65536, 1114111, 331) c,
     LATERAL (SELECT * FROM sendcampaign.segments(chr(c)) OFFSET 0) s;

-- 100 kB and more
SELECT s.* FROM count_of('0', '102400') s;
SELECT s.* FROM count_of('[', '102400') s;
SELECT s.* FROM count_of('ж', '51200') s;
SELECT s.* FROM count_of('0', '102400', '😜', '1') s;
SELECT s.* FROM count_of('0😜', '1000000') s;

-- as it may be used
SELECT provolatile, proisstrict, proparallel FROM pg_proc WHERE proname = 'segments';

-- in other encodings
\c regression_latin1
\encoding UTF8
CREATE EXTENSION sendcampaign;
SELECT t, s.* FROM unnest(ARRAY['Æ', 'é', 'ð', 'ç', '£']) t, sendcampaign.segments(t) s;
\c regression_sql_ascii
CREATE EXTENSION sendcampaign;
SELECT * FROM sendcampaign.segments('[]');
SELECT * FROM sendcampaign.segments(E'\xc3\xb0');
SELECT * FROM sendcampaign.segments(E'\xf0');

\c :main
DROP DATABASE regression_utf8;
DROP DATABASE regression_latin1;
DROP DATABASE regression_sql_ascii;
