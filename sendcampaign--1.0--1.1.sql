/* sendcampaign--1.0--1.1.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION sendcampaign UPDATE TO '1.1'" to load this file. \quit

-- names and operators below are PostgreSQL's own, even if others create theirs
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

-- Whoever has granted rights keeps them: EXECUTE is revoked from PUBLIC for each new function alone
