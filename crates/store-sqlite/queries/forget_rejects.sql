DELETE FROM rejects WHERE seq <= (SELECT max(seq) FROM rejects) - ?1
