-- All but the latest.
DELETE FROM rejects WHERE id <= (SELECT max(id) FROM rejects) - $1
