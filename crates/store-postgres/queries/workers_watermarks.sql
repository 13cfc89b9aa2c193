SELECT lane.key AS lane, max(lane.value::bigint) AS newest
FROM workers w CROSS JOIN jsonb_each_text(w.watermarks) AS lane (key, value)
GROUP BY lane.key
