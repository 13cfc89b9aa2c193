SELECT EXISTS (SELECT FROM limit_changes) AS found
