UPDATE tasks t SET holds = NULL FROM unnest($1::uuid[]) AS r (id) WHERE t.id = r.id AND t.state <> 'running'
