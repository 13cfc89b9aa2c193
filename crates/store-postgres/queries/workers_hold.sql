-- A worker that claims is not declared dead meanwhile. Held first: who declares it dead holds it, and then its tasks.
SELECT FROM workers WHERE id = $1 FOR KEY SHARE
