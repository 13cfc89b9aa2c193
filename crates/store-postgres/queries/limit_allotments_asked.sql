-- How many places a worker is given in advance, and the revision of what it has.
SELECT slots, allotment_revision AS revision FROM workers WHERE id = $1 FOR KEY SHARE
