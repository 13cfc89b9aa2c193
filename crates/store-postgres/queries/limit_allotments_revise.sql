-- What these workers ($1, sorted) believe to have is wrong from now on.
UPDATE workers SET allotment_revision = nextval('allotment_revisions') WHERE id = ANY ($1::uuid[])
