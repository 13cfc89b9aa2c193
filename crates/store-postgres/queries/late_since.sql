-- From when on something was recorded late that was noted after $1.
SELECT min(created_from) AS created_from, max(id) AS id FROM late_records WHERE id > $1
