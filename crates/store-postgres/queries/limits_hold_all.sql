-- Held by who puts or deletes one: so there are never more than allowed, and a revision follows another.
LOCK TABLE limits IN SHARE ROW EXCLUSIVE MODE
